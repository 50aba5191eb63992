"""`python -m nocookie` is the command `nocookie`."""

from nocookie.cli import main

main()
