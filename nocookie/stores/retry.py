"""To try again where others were quicker: until a moment, and not all at the same time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Final

__all__ = ["tries"]

#: Seconds, at most, from one try to the next: about what a trip to a server takes, and then
#: double, up to twenty times that.
FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.02

#: The system's: processes that were forked in C would all draw the same numbers.
_pause_up_to: Final = random.SystemRandom().uniform


def tries(until: float, longest: float = LONGEST_PAUSE) -> Iterator[None]:
    """Yield for a first try, and after a pause for each further one, as long as there is time.

    *until* is a time of `time.monotonic`; no try begins after it but the first. *longest* is how
    many seconds a pause may have. It is random, so that those who were in each other's way are not
    so again. Whoever was late all the time comes out of the loop, and says so to his caller.
    """
    pause = min(FIRST_PAUSE, longest)
    while True:
        yield
        if time.monotonic() + pause > until:
            return
        time.sleep(_pause_up_to(0, pause))
        pause = min(2 * pause, longest)
