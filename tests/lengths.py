"""How long those tests go on that find more the longer they run: in `make test` as long as finds
what is plainly broken, in `make soak` five times that, or ten times."""

import os

#: Saves of each of two writers that meet.
TURNS = int(os.environ.get("NOCOOKIE_TURNS", "200"))
#: Rounds of a late request against the end of its session.
ROUNDS = int(os.environ.get("NOCOOKIE_ROUNDS", "400"))
#: How often a writer is killed in the middle of its work.
KILLS = int(os.environ.get("NOCOOKIE_KILLS", "40"))
#: How many times the usual number of generated URLs, pages and histories of sessions.
FUZZ = int(os.environ.get("NOCOOKIE_FUZZ", "1"))
#: New sessions of clients that never return.
FLOOD = int(os.environ.get("NOCOOKIE_FLOOD", "3000"))
#: Whether what need not run on every store does.
EVERY_STORE = bool(os.environ.get("NOCOOKIE_STORES"))
