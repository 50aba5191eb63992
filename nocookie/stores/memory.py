"""Sessions in this process: for one process, for tests, for trying things out.

Records are tuples of bytes, replaced in one step and never changed, so no two requests share an
object and readers need no lock.

The store is capped. At `max_sessions` one makes room for each that comes: of those without an owner
the one that has been idle longest, and only where all have one, of those. So clients that begin
sessions and never return push out one another, and nobody who is logged in.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from nocookie.errors import SessionGone
from nocookie.forks import ProcessLocal
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Moved,
    Record,
    Trail,
    VersionChanged,
    is_same,
    merge,
    new_record,
)

__all__ = ["MemoryStore"]

#: The version of what is no record any more, but the trail of one; its seal is the ticket.
TRAIL: Final = 0

#: How many records a `create` looks at, and removes if they have expired. Two for each that comes:
#: so what is expired goes faster than new ones come, and no create takes long.
SWEEP_PER_CREATE: Final = 2


class MemoryStore:
    """Sessions in a dict. Lost with the process; invisible to other processes."""

    shared = False
    rotates_in_one_step = True

    def __init__(
        self, *, max_sessions: int = 100_000, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_sessions = max_sessions
        self._clock = clock
        # In order of the last save or touch: the longest idle first. A write replaces a record
        # and then moves it: readers, who take no lock, must not find it missing in between.
        self._records: OrderedDict[str, Record] = OrderedDict()
        #: The keys of those without an owner, in the same order. Not the trail of one that has an
        #: owner: who is logged in may still come by it.
        self._ownerless: OrderedDict[str, None] = OrderedDict()
        #: What the sweep still has to look at, of the keys that there were when it began.
        self._unswept: Iterator[str] = iter(())
        #: The owner of a record, and the keys of an owner: of few records, so not in them.
        self._owners: dict[str, bytes] = {}
        self._owned: dict[bytes, set[str]] = {}
        self._lock = ProcessLocal(threading.Lock)

    def load(self, key: str) -> Record | Missing | Moved:
        record = self._records.get(key)
        if record is None:
            return Missing.UNKNOWN
        if record.expires <= self._clock():
            return Missing.EXPIRED if record.version else Missing.UNKNOWN
        return record if record.version else Moved(record.seal)

    def create(
        self,
        key: str,
        record: Record,
        ttl: float,
        owner: bytes | None = None,
        instead_of: Record | Missing | None = None,
    ) -> None:
        now, version = self._clock(), 1
        with self._lock.here():
            records = self._records
            if instead_of is not None:
                version = self._version_after(key, instead_of)
                self._remove(key)
            elif key in records:
                if records[key].expires > now:
                    raise KeyTaken
                self._remove(key)
            self._sweep(now)
            self._make_room(1)
            fields, created, *_, seal = record
            records[key] = new_record((dict(fields), created, now, now + ttl, version, seal))
            self._give(key, owner)

    def save(
        self,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None = None,
        seal: bytes | None = None,
    ) -> None:
        now = self._clock()
        with self._lock.here():
            fields, created, _, _, version, there = self._alive(key, now, seal)
            if expect is not None and expect != version:
                raise VersionChanged
            self._records[key] = new_record(
                (merge(fields, delta), created, now, now + ttl, version + 1, there)
            )
            self._used(key)

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        now = self._clock()
        with self._lock.here():
            there = self._alive(key, now, seal)
            self._records[key] = there._replace(accessed=now, expires=now + ttl)
            self._used(key)

    def rotate(
        self,
        old: str,
        new: str,
        delta: Delta,
        seal: bytes,
        ttl: float,
        owner: bytes | None = None,
        trail: Trail | None = None,
    ) -> None:
        now = self._clock()
        with self._lock.here():
            fields, created, _, _, version, _ = self._alive(old, now)
            if new in self._records:
                raise KeyTaken
            whose = self._owners.get(old) if owner is None else owner
            began = created if owner is None else now
            self._records[new] = new_record(
                (merge(fields, delta), began, now, now + ttl, version + 1, seal)
            )
            self._give(new, whose)
            if trail is None:
                self._remove(old)
            else:
                self._disown(old)
                ends = now + trail.ttl
                self._records[old] = new_record(({}, created, now, ends, TRAIL, trail.ticket))
                self._make_room(0)

    def destroy(self, key: str, expired: bool = False) -> Moved | None:
        with self._lock.here():
            if expired and key in self._records and self._records[key].expires > self._clock():
                return None
            record = self._remove(key)
        if record is None or record.version or record.expires <= self._clock():
            return None
        return Moved(record.seal)

    def close(self) -> None:
        """Nothing to release: what is stored stays as long as the store does."""

    def purge(self, limit: int) -> int:
        now = self._clock()
        with self._lock.here():
            expired = [key for key, record in self._records.items() if record.expires <= now]
            for key in expired[:limit]:
                self._remove(key)
        return len(expired[:limit])

    def keys(self) -> Iterator[str]:
        now = self._clock()
        with self._lock.here():
            records = self._records.items()
            living = [k for k, there in records if there.expires > now and there.version != TRAIL]
        yield from living

    def owned(self, owner: bytes) -> list[str]:
        now = self._clock()
        with self._lock.here():
            return [key for key in self._owned.get(owner, ()) if self._records[key].expires > now]

    def end_owned(self, owner: bytes, but: str | None = None) -> int:
        now = self._clock()
        with self._lock.here():
            ended = [key for key in self._owned.get(owner, ()) if key != but]
            records = map(self._remove, ended)
            return sum(record is not None and record.expires > now for record in records)

    def _version_after(self, key: str, seen: Record | Missing) -> int:
        there = self._records.get(key)
        if there is None or not is_same(there, seen):
            raise VersionChanged
        return there.version + 1

    def _sweep(self, now: float) -> None:
        """Remove some of what has expired: the longest idle, or where that has not, since it may
        live for longer than others, whatever comes next."""
        records = self._records
        for _ in range(SWEEP_PER_CREATE):
            key = next(iter(records), None)
            if key is None:
                return
            if records[key].expires > now:
                key = next(self._unswept, None)
                if key is None:  # a copy takes less than 10 ns for each record
                    self._unswept = iter([*records])
                    continue
                record = records.get(key)
                if record is None or record.expires > now:
                    continue
            self._remove(key)

    def _make_room(self, count: int) -> None:
        """Have at most so many records that *count* more may come."""
        records = self._records
        while len(records) + count > self._max_sessions:
            self._remove(next(iter(self._ownerless or records)))

    def _used(self, key: str) -> None:
        self._records.move_to_end(key)
        if key in self._ownerless:
            self._ownerless.move_to_end(key)

    def _give(self, key: str, owner: bytes | None) -> None:
        if owner is None:
            self._ownerless[key] = None
        else:
            self._owners[key] = owner
            self._owned.setdefault(owner, set()).add(key)

    def _disown(self, key: str) -> None:
        owner = self._owners.pop(key, None)
        if owner is not None:
            # In a child, what another thread had in hand at the fork is half done for ever.
            keys = self._owned.get(owner, set())
            keys.discard(key)
            if not keys:
                self._owned.pop(owner, None)

    def _remove(self, key: str) -> Record | None:
        self._ownerless.pop(key, None)
        if self._owners:
            self._disown(key)
        return self._records.pop(key, None)

    def _alive(self, key: str, now: float, seal: bytes | None = None) -> Record:
        record = self._records.get(key)
        if (
            record is not None
            and record.expires > now
            and record.version != TRAIL
            and (seal is None or seal == record.seal)
        ):
            return record
        raise SessionGone("the session has ended")
