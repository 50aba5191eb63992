"""What is asked of a session system, numbered; and which module checks it.

The numbers are those of docs/security.md. The sources are OWASP ASVS 5.0 (chapter V7), the OWASP
session cheat sheet and test guide (WSTG-SESS), and NIST SP 800-63B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["CHECKS", "NOT_FROM_OUTSIDE", "TITLES", "Failed", "NotApplicable", "check"]


class Failed(Exception):
    """The requirement is not met; the text is the evidence."""


class NotApplicable(Exception):
    """The requirement cannot be checked here; the text says why."""


TITLES: Final[Mapping[int, str]] = {
    1: "ids are unpredictable: 128 random bits at least, and nothing else in them",
    2: "an id that was not issued here, or has ended, is never adopted",
    3: "what cannot be an id counts as none: no error, no store trip, no echo",
    4: "one text is one session: no other spelling of an id opens it",
    5: "the store does not hold ids, nor anything that can be used as one",
    6: "a login and a rotation give a new id, keep the data and end the old id",
    7: "a request under way cannot revive the id that was rotated away",
    8: "a grace after a rotation is short, and never bridges a login",
    9: "an ended session stays ended, however often its id is sent",
    10: "no reader or writer in flight revives a session that was ended",
    11: "a save that was refused because the session ended is reported",
    12: "requests that change different keys lose nothing",
    13: "a request that only reads writes no data",
    14: "there is an exact way to change one key from several requests",
    15: "changes inside of stored values are noticed",
    16: "a session that lies idle ends",
    17: "a session ends after its lifetime, however much it is used",
    18: "expiry is decided when a session is read, not by a cleaner",
    19: "expired sessions are removed, and none that lives",
    20: "all sessions of a user can be listed and ended",
    21: "who stores nothing costs no storage",
    22: "a session has a size limit, and what is over it is refused",
    23: "no id is in logs or in error pages",
    24: "ids in URLs are masked in the access log",
    25: "no cache gives one visitor's id or page to another",
    26: "pages with an id in their URL tell it no other origin (Referrer-Policy)",
    27: "links to other origins never get the id",
    28: "redirects lead to no other origin, and carry the id to none",
    29: "an issued id is safe in a URL, a header and markup; what a client sends is not echoed raw",
    30: "no client can put a header into a response",
    31: "an id that a browser sends by itself is no permission: what acts needs a token",
    32: "two different ids in one request are none, and ids are read where it was said, only",
    33: "junk where the id should be is no error",
    34: "an id in the path is taken off once, so that guard and application see one path",
    35: "what lies in the store is never executed",
    36: "a record moved to another session is noticed",
    37: "a corrupted record costs that session only",
    38: "a store that fails is an error, never an empty session",
    39: "a store that hangs does not hang the application",
    40: "what is acknowledged is stored; what is written later is stored or reported",
    41: "a request that fails saves nothing",
    42: "requests never see one another's session",
    43: "a crash leaves the old record or the new one",
    44: "a short write destroys nothing",
    45: "what a save survives is documented",
    46: "session files are private to their owner",
    47: "connections survive forks and threads",
    48: "the time of a look-up says nothing about ids",
    49: "guesses are counted",
    50: "a token that holds the session cannot be changed, and ends",
    51: "what happens to a session is an event",
    52: "ids are neither issued nor taken over plain HTTP",
    53: "clocks that jump revive nothing, and break nothing",
    54: "another client with the same id is noticed, where that was configured",
    55: "the answer to a logout leaves no id behind",
}

#: Requirements that need the machine, the source or the store in hand.
NOT_FROM_OUTSIDE: Final[Mapping[int, str]] = {
    36: "cannot be seen from outside: take a record of the store and put it under another key",
    43: "cannot be seen from outside: kill the process while it saves",
    44: "cannot be seen from outside: save on a disk that is full",
    45: "cannot be seen from outside: read what the store promises",
    46: "cannot be seen from outside: look at the files of the store",
    48: "cannot be told from outside with any certainty: read how ids are looked up and compared",
}

#: One function a requirement. It returns the evidence, and raises `Failed` or `NotApplicable`.
CHECKS: Final[dict[int, Callable[[Any], str]]] = {}


def check(number: int) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """Register the check of a requirement."""

    def register(function: Callable[[Any], str]) -> Callable[[Any], str]:
        assert number in TITLES and number not in CHECKS
        CHECKS[number] = function
        return function

    return register
