"""`python -m nocookie` is the command `nocookie`."""

import sys

from nocookie.cli import main

sys.exit(main())
