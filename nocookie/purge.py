"""Removing expired records in batches that disturb nobody.

A store that removes many records at once holds up everybody who writes. So each batch is as large
as fits into a short time, judged by the one before, and after each there is a rest as long as the
batch was: at least half of the time belongs to the requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from nocookie.stores.base import Purgeable

__all__ = ["Batch", "in_batches"]

#: Seconds that a batch should take. No lock should be held longer than 50 ms, and a batch may well
#: take three times what the one before let expect. Longer ones remove no more in all.
AIM: Final = 0.01
#: Records in the first batch: little enough for a slow disk that has nothing in its cache yet.
FIRST: Final = 50
#: However slow it is, some go: a store that makes every call wait would else never be done.
LEAST: Final = 10
#: However fast it is, the memory for one batch stays small.
MOST: Final = 10_000
#: Seconds at most to rest: a batch that waited for a lock took long without holding up anybody.
LONGEST_REST: Final = 0.1


class Batch(NamedTuple):
    """One batch that is done."""

    removed: int
    #: Seconds, with the time that it waited for others.
    took: float
    #: Nothing is left that has expired by now.
    last: bool


def in_batches(
    store: Purgeable,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Batch]:
    """Remove what has expired in *store*, and yield each batch as it is done.

    Whoever stops asking for batches stops the removal. Raises `StoreError`; what was removed by
    then stays removed.
    """
    size = FIRST
    while True:
        begun = clock()
        removed = store.purge(size)
        took = clock() - begun
        last = removed < size
        yield Batch(removed, took, last)
        if last:
            return
        size = _next_size(size, took)
        sleep(min(took, LONGEST_REST))


def _next_size(size: int, took: float) -> int:
    """Shrink at once, but grow to the double at most: one quick batch says little."""
    wanted = size * AIM / took if took > 0 else MOST
    return max(LEAST, min(round(wanted), 2 * size, MOST))
