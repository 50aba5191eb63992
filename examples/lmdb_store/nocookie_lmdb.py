"""A store of nocookie in a package of its own: sessions in LMDB, for the processes of one host.

LMDB is a file that all processes map into their memory. Readers see the state of one moment and
wait for nobody; writers come one after the other. So every call of the contract is one transaction.

    pip install ./examples/lmdb_store
    SessionMiddleware(app, type="lmdb", data_dir="/var/lib/shop")
"""

from __future__ import annotations

import fcntl
import math
import os
import random
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nocookie import ConfigError, SessionGone, StoreError, StoreTimeout
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
    pack,
    unpack,
)

#: What a record begins with: the format, three times, the version, the seal's length.
HEAD = struct.Struct(">BdddQH")
FORMAT = 1
#: The version of what is no record any more, but the trail of one; its seal is the ticket.
TRAIL = 0
#: The end of a record, before its key: in the order of these, `purge` finds what is over.
END = struct.Struct(">d")

#: How many records one step of `keys` looks at.
KEYS_AT_ONCE = 100
#: How many expired records a `create` removes: more than it adds, and no create takes long.
SWEEP_PER_CREATE = 2


class LmdbStore:
    """Sessions in `<data_dir>/lmdb`, up to *map_size* bytes of them.

    What was acknowledged survives a killed process; after a loss of power the last commit may be
    missing. *deadline* is in seconds, for one call. One process opens a folder only once.
    """

    shared = True

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str],
        map_size: int = 2**30,
        deadline: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise ConfigError("type = 'lmdb' needs lmdb: pip install lmdb") from error
        self._lmdb = lmdb
        self._folder = Path(os.path.abspath(data_dir)) / "lmdb"
        self._map_size = map_size
        self._deadline = deadline
        self._clock = clock
        self._opened: _Opened | None = None
        self._after_fork_in_child()
        _living.add(self)

    # -- the contract ---------------------------------------------------------------------------

    def load(self, key: str) -> Record | Missing | Moved:
        with self._transaction(write=False) as sessions:
            found = sessions.get(key)
        return _told(found, self._clock())

    def create(
        self,
        key: str,
        record: Record,
        ttl: float,
        owner: bytes | None = None,
        instead_of: Record | Missing | None = None,
    ) -> None:
        now = self._clock()
        with self._transaction() as sessions:
            sessions.purge(now, SWEEP_PER_CREATE)
            found, version = sessions.get(key), 1
            if instead_of is not None:
                if isinstance(found, Record) and isinstance(instead_of, Record):
                    is_there, version = is_same(found, instead_of), found.version + 1
                else:
                    is_there = found is instead_of
                if not is_there:
                    raise VersionChanged
            elif found is Missing.CORRUPTED or (isinstance(found, Record) and found.expires > now):
                raise KeyTaken
            sessions.put(key, record._replace(accessed=now, expires=now + ttl, version=version))

    def save(
        self,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None = None,
        seal: bytes | None = None,
    ) -> None:
        now = self._clock()
        with self._transaction() as sessions:
            record = sessions.alive(key, now, seal)
            if expect is not None and expect != record.version:
                raise VersionChanged
            sessions.put(key, _changed(record, delta, now, ttl))

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        now = self._clock()
        with self._transaction() as sessions:
            record = sessions.alive(key, now, seal)
            sessions.put(key, record._replace(accessed=now, expires=now + ttl))

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
        with self._transaction() as sessions:
            record = sessions.alive(old, now)
            if sessions.get(new) is not Missing.UNKNOWN:
                raise KeyTaken
            sessions.delete(old)
            began = record.created if owner is None else now
            moved = _changed(record, delta, now, ttl)
            sessions.put(new, moved._replace(seal=seal, created=began))
            if trail is not None:
                ends = now + trail.ttl
                sessions.put(old, Record({}, began, now, ends, TRAIL, trail.ticket))

    def destroy(self, key: str, expired: bool = False) -> Moved | None:
        with self._transaction() as sessions:
            found = sessions.get(key)
            if expired and _told(found, self._clock()) is not Missing.EXPIRED:
                return None
            sessions.delete(key)
        told = _told(found, self._clock())
        return told if isinstance(told, Moved) else None

    def close(self) -> None:
        """Close the file, as soon as nobody uses it; if that takes too long, leave it open."""
        with self._change:
            self._close()

    # -- optional powers --------------------------------------------------------------------------

    def purge(self, limit: int) -> int:
        with self._transaction() as sessions:
            return sessions.purge(self._clock(), limit)

    def keys(self) -> Iterator[str]:
        # In steps: as long as somebody reads, LMDB gives back no page that was there.
        last: bytes | None = b""
        while last is not None:
            with self._transaction(write=False) as sessions:
                living, last = sessions.living(self._clock(), last, KEYS_AT_ONCE)
            yield from living

    # -- transactions -----------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, write: bool = True) -> Iterator[_Sessions]:
        """Commit at the end; with an exception, change nothing."""
        until = time.monotonic() + self._deadline
        try:
            with (
                self._in_use() as opened,
                opened.turn(write, until),
                opened.environment.begin(write=write) as transaction,
            ):
                yield _Sessions(transaction, opened.records, opened.ends)
        except self._lmdb.MapFullError as error:
            raise StoreError("the LMDB store is full: its map_size is used up") from error
        except (self._lmdb.Error, OSError) as error:
            raise StoreError(f"the LMDB store failed: {type(error).__name__}") from error

    @contextmanager
    def _in_use(self) -> Iterator[_Opened]:
        """What is opened, which nobody closes meanwhile."""
        with self._change:
            self._change.wait_for(lambda: not self._closing, self._deadline)
            if self._opened is None:
                self._opened = _Opened(self._lmdb, self._folder, self._map_size)
            self._users += 1
            opened = self._opened
        try:
            yield opened
        finally:
            with self._change:
                self._users -= 1
                self._change.notify_all()

    def _close(self) -> None:
        self._closing += 1
        unused = self._change.wait_for(lambda: not self._users, self._deadline)
        if unused and self._opened is not None:
            self._opened.close()
            self._opened = None
        self._closing -= 1
        self._change.notify_all()

    # -- forks: LMDB wants each process to open the file by itself --------------------------------

    def _before_fork(self) -> None:
        self._change.acquire()
        self._close()

    def _after_fork_in_parent(self) -> None:
        self._change.release()

    def _after_fork_in_child(self) -> None:
        if self._opened is not None:
            # Somebody used it for longer than the deadline. LMDB does not let us open it again
            # here; every call will be a StoreError, and nothing is torn.
            _inherited.append(self._opened)
            self._opened = None
        self._change = threading.Condition()
        self._users = self._closing = 0


class _Opened:
    """The file, opened by one process, and the turns of those who write to it.

    LMDB lets one write at a time, and whoever waits for that waits as long as it takes, also for
    a process that is stopped. So writers wait here before, until their deadline: the threads of
    this process for a lock, the processes for a lock on a file, which ends with its process.
    """

    def __init__(self, lmdb: Any, folder: Path, map_size: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.environment = lmdb.open(
            str(folder), map_size=map_size, max_dbs=2, max_readers=1024, mode=0o600, metasync=False
        )
        self.records = self.environment.open_db(b"records")
        self.ends = self.environment.open_db(b"ends")
        self._thread = threading.Lock()
        self._file = os.open(folder / "turn", os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def turn(self, write: bool, until: float) -> Iterator[None]:
        if not write:
            yield
            return
        if not self._thread.acquire(timeout=max(0.0, until - time.monotonic())):
            raise StoreTimeout("the LMDB store: another thread wrote for too long")
        try:
            while not self._take_file():
                if time.monotonic() > until:
                    raise StoreTimeout("the LMDB store: another process wrote for too long")
                time.sleep(random.uniform(0, 0.002))
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
            self._thread.release()

    def _take_file(self) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self.environment.close()
        os.close(self._file)


class _Sessions:
    """The records as one transaction sees them."""

    def __init__(self, transaction: Any, records: Any, ends: Any) -> None:
        self._transaction = transaction
        self._records = records
        self._ends = ends

    def get(self, key: str) -> Record | Missing:
        data = self._transaction.get(bytes.fromhex(key), db=self._records)
        return Missing.UNKNOWN if data is None else _read(data)

    def alive(self, key: str, now: float, seal: bytes | None = None) -> Record:
        found = self.get(key)
        if found is Missing.CORRUPTED:
            raise StoreError("the LMDB store: the record cannot be read, left as it is")
        told = _told(found, now)
        if not isinstance(told, Record) or seal not in (None, told.seal):
            raise SessionGone("the session has ended")
        return told

    def put(self, key: str, record: Record) -> None:
        name = bytes.fromhex(key)
        self.delete(key)
        fields, created, accessed, expires, version, seal = record
        head = HEAD.pack(FORMAT, created, accessed, expires, version, len(seal))
        self._transaction.put(name, b"".join((head, seal, pack(fields))), db=self._records)
        self._transaction.put(END.pack(expires) + name, b"", db=self._ends)

    def delete(self, key: str) -> None:
        name = bytes.fromhex(key)
        found = self.get(key)
        if isinstance(found, Record):
            self._transaction.delete(END.pack(found.expires) + name, db=self._ends)
        self._transaction.delete(name, db=self._records)

    def living(self, now: float, after: bytes, limit: int) -> tuple[list[str], bytes | None]:
        """Return which of the *limit* records after that name live, and the last of them; None if
        there is none any more."""
        living = []
        records = self._transaction.cursor(db=self._records)
        there = records.set_range(after + b"\0" if after else after)
        for _ in range(limit):
            if not there:
                return living, None
            name, data = records.item()
            if isinstance(_told(_read(data), now), Record):
                living.append(name.hex())
            there = records.next()
        return living, name

    def purge(self, now: float, limit: int) -> int:
        ends = self._transaction.cursor(db=self._ends)
        removed = 0
        while removed < limit and ends.first() and END.unpack_from(ends.key())[0] <= now:
            name = ends.key()[END.size :]
            found = self.get(name.hex())
            ends.delete()
            # What became unreadable is kept, though its end is forgotten.
            if isinstance(found, Record) and found.expires <= now:
                self._transaction.delete(name, db=self._records)
                removed += 1
        return removed


def _told(found: Record | Missing, now: float) -> Record | Missing | Moved:
    """What is said of what is there."""
    if isinstance(found, Missing):
        return found
    if found.expires <= now:
        return Missing.EXPIRED if found.version != TRAIL else Missing.UNKNOWN
    return found if found.version != TRAIL else Moved(found.seal)


def _changed(record: Record, delta: Delta, now: float, ttl: float) -> Record:
    return record._replace(
        fields=merge(record.fields, delta),
        accessed=now,
        expires=now + ttl,
        version=record.version + 1,
    )


def _read(data: bytes) -> Record | Missing:
    try:
        format, created, accessed, expires, version, seal_size = HEAD.unpack_from(data)
        if format != FORMAT or math.isnan(expires):
            return Missing.CORRUPTED
        fields_at = HEAD.size + seal_size
        fields = unpack(data[fields_at:])
    except (struct.error, ValueError):
        return Missing.CORRUPTED
    return Record(fields, created, accessed, expires, version, data[HEAD.size : fields_at])


_living: weakref.WeakSet[LmdbStore] = weakref.WeakSet()
_inherited: list[_Opened] = []
_forking: list[LmdbStore] = []
_one_fork_at_a_time = threading.Lock()


def _before_fork() -> None:
    _one_fork_at_a_time.acquire()
    _forking.extend(_living)
    for store in _forking:
        store._before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop()._after_fork_in_parent()
    _one_fork_at_a_time.release()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop()._after_fork_in_child()
    _one_fork_at_a_time.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
