"""Sessions in one SQLite file, for all processes of one host.

SQLite in WAL mode gives what a folder of pickles never gave: a save is one guarded statement,
readers and the writer do not wait for each other, a SIGKILL at any point leaves the old record
or the new one, and a sweep costs what it removes.

The rules of this file:

1. The file is made by the first `create` and never by a read.
2. A save is a single UPDATE. The delta is applied inside it, by the SQL function
   `apply_delta`, so there is no moment between reading a record and writing it.
3. A connection is used by one thread at a time and only by the process that opened it. SQLite
   keeps count of a process's locks in memory; a child that inherits the count, but not the
   locks, may wait for one for ever, or read what nobody protects. So a fork waits until no
   statement runs, and no connection is open while it happens. Should one run longer than the
   deadline, or should the fork not be made by Python, the child at least never touches its
   connection.
4. A rotation that leaves a trail is the one transaction of two statements: the row moves, and
   another takes its place, version 0, with the ticket for its data. Nothing but SQL in between.
5. Driver exceptions become `StoreError` here, and carry no data.
6. A file that is not this user's, or that others may write to, is not opened. One that was replaced
   or removed is noticed at the next call, which costs that call a stat.
7. What ends sessions goes through on a full disk: see `nocookie.stores.reserve`.

WAL wants a local disk. On a network file system use the `sqlalchemy` or `redis` store.
"""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from nocookie.errors import ConfigError, SessionGone, StoreError, StoreTimeout
from nocookie.events import emit
from nocookie.forks import ForkAware, ProcessLocal
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Moved,
    Record,
    Trail,
    VersionChanged,
    merge,
    new_record,
    pack,
    unpack,
)
from nocookie.stores.ownership import check_file, check_folder, check_way, may_be_read
from nocookie.stores.pool import Pool
from nocookie.stores.reserve import Reserve
from nocookie.stores.retry import tries
from nocookie.stores.sqlite_file import SIDES, Identity, Replacements, identity, make, sides

__all__ = ["FileStore"]

T = TypeVar("T")

#: Marks the file as ours (SQLite's application_id): "nock".
APPLICATION_ID: Final = 0x6E6F636B
#: The version of the schema (SQLite's user_version). A newer one is refused, and kept.
SCHEMA_VERSION: Final = 2

#: The version of what is no record any more, but the trail of one. The guards below say 0.
TRAIL: Final = 0

#: A `create` sweeps at most once in so many seconds, and removes at most so many records: both
#: keep the sweep invisible (about 2 ms), and together they keep up with 3 new sessions a second.
#: Busier sites run `nocookie purge`.
SWEEP_EVERY: Final = 30.0
SWEEP_AT_MOST: Final = 100

SCHEMA: Final = (
    """
    CREATE TABLE sessions (
        key      BLOB PRIMARY KEY,
        data     BLOB NOT NULL,
        created  REAL NOT NULL,
        accessed REAL NOT NULL,
        expires  REAL NOT NULL,
        sweep    INTEGER NOT NULL,
        version  INTEGER NOT NULL,
        seal     BLOB NOT NULL,
        owner    BLOB
    ) WITHOUT ROWID
    """,
    # By the minute after `expires`, which is what counts: so most saves leave the index as it is,
    # and that spares them a quarter of their cost.
    "CREATE INDEX sessions_by_sweep ON sessions (sweep)",
    # Most sessions are nobody's, or of nobody who asks: they are not in it, and cost it nothing.
    "CREATE INDEX sessions_by_owner ON sessions (owner) WHERE owner IS NOT NULL",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
#: What makes a file of version 1 one of this version. Processes with the older code may go on with
#: it: to them, a record is what it was, and a trail is one that they cannot read.
UPGRADE: Final = (
    "ALTER TABLE sessions ADD COLUMN owner BLOB",
    "CREATE INDEX sessions_by_owner ON sessions (owner) WHERE owner IS NOT NULL",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
#: How many records a sweep of a full disk removes at a time.
PURGE_FEW: Final = 50

LOAD: Final = "SELECT data, created, accessed, expires, version, seal FROM sessions WHERE key = ?"
CREATE: Final = """
    INSERT INTO sessions (key, data, created, accessed, expires, sweep, version, seal, owner)
    VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)
    ON CONFLICT (key) DO UPDATE SET
        data = excluded.data, created = excluded.created, accessed = excluded.accessed,
        expires = excluded.expires, sweep = excluded.sweep, version = 1, seal = excluded.seal,
        owner = excluded.owner
    WHERE sessions.expires <= excluded.accessed
"""
_ANEW: Final = """
    UPDATE sessions
    SET data = ?, created = ?, accessed = ?, expires = ?, sweep = ?, seal = ?, owner = ?, version =
"""
REPLACE: Final = f"{_ANEW} version + 1 WHERE key = ? AND version = ? AND seal = ? AND version <> 0"
#: As `LOAD` has found it.
REPAIR: Final = f"""{_ANEW} 1
    WHERE key = ? AND data IS ? AND created IS ? AND accessed IS ? AND expires IS ?
    AND version IS ? AND seal IS ?
"""
SAVE: Final = """
    UPDATE sessions
    SET data = apply_delta(data), accessed = ?, expires = ?, sweep = ?, version = version + 1
    WHERE key = ? AND expires > ? AND version <> 0
"""
EXPECTED: Final = " AND version = ?"
SEALED: Final = " AND seal = ?"
TOUCH: Final = """
    UPDATE sessions SET accessed = ?, expires = ?, sweep = ?
    WHERE key = ? AND expires > ? AND version <> 0
"""
ROTATE: Final = """
    UPDATE sessions
    SET key = ?, data = apply_delta(data), accessed = ?, expires = ?, sweep = ?, seal = ?,
        version = version + 1, owner = coalesce(?, owner), created = coalesce(?, created)
    WHERE key = ? AND expires > ? AND version <> 0
"""
LEAVE_TRAIL: Final = """
    INSERT INTO sessions (key, data, created, accessed, expires, sweep, version, seal)
    VALUES (?, ?, ?, ?, ?, ?, 0, x'')
"""
DESTROY: Final = "DELETE FROM sessions WHERE key = ? AND version <> 0"
DESTROY_EXPIRED: Final = f"{DESTROY} AND expires <= ?"
FIND_TRAIL: Final = "SELECT data FROM sessions WHERE key = ? AND version = 0 AND expires > ?"
REMOVE_TRAIL: Final = "DELETE FROM sessions WHERE key = ? AND version = 0"
ALIVE: Final = "SELECT seal FROM sessions WHERE key = ? AND expires > ? AND version <> 0"
#: In the minute that is not over yet, expired records lie among living ones, and the index does not
#: tell which. With many sessions there are many, so a sweep looks at no more than these.
LOOK: Final = 100
#: The earliest come first: of minutes that are over, where all has expired.
PURGE: Final = """
    DELETE FROM sessions
    WHERE key IN (
        SELECT key
        FROM (SELECT key, expires FROM sessions WHERE sweep <= ? ORDER BY sweep LIMIT ?)
        WHERE expires <= ?
        LIMIT ?
    )
"""
EXPIRED: Final = """
    SELECT (SELECT count(*) FROM sessions WHERE sweep < ?) + count(*)
    FROM (SELECT expires FROM sessions WHERE sweep = ? LIMIT ?)
    WHERE expires <= ?
"""
#: Brings what was written into the main file, and holds nobody up. SQLite does so by itself when
#: much has come together, but then whoever writes next waits for the disk, and that is a request.
CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"
#: The same for all of it, and what it took on the disk is given back.
SHORTEN: Final = "PRAGMA wal_checkpoint(TRUNCATE)"
KEYS: Final = """
    SELECT key FROM sessions WHERE expires > ? AND key > ? AND version <> 0
    ORDER BY key LIMIT 1000
"""
OWNED: Final = "SELECT key FROM sessions WHERE owner = ? AND expires > ?"
END_OWNED: Final = "DELETE FROM sessions WHERE owner = ? AND expires > ? AND key IS NOT ?"

_NOTHING: Final = Delta()

#: In seconds; see the index.
SWEEP_GRID: Final = 60.0
#: The `sweep` of what never expires: the largest integer of SQLite.
NEVER: Final = 2**63 - 1

#: What SQLite says where there is no room: for data, and for the locks that lie beside them.
FULL: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})

#: How long at most to wait for a lock before the next try: in seconds, about ten saves.
LOCK_PAUSE: Final = 0.002

#: The synchronous pragma for each level of durability.
DURABILITY: Final = {"normal": "NORMAL", "full": "FULL"}


class FileStore(ForkAware):
    """Sessions in `<data_dir>/sessions/sessions.db`.

    *durability* is what an acknowledged save survives: `"normal"`, the death of the process;
    `"full"`, the loss of power too, for about ten times the cost of a save. Neither ever leaves
    a torn record. *deadline* is in seconds, for one call.
    """

    shared = True
    rotates_in_one_step = True

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str],
        durability: str = "normal",
        pool_size: int = 8,
        deadline: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if durability not in DURABILITY:
            raise ConfigError(f"durability is normal or full, not {durability!r}")
        self._folder = Path(os.path.abspath(data_dir)) / "sessions"
        self._path = str(self._folder / "sessions.db")
        self._reserve = Reserve(self._path)
        self._durability = durability
        self._pool: ProcessLocal[Pool[_Connection]] = ProcessLocal(partial(Pool, pool_size))
        self._deadline = deadline
        self._clock = clock
        self._last_sweep = clock()
        self._replacements = Replacements()
        #: Others may read the file, and that was said.
        self._warned = False
        self._hear_of_forks()

    # -- the contract ---------------------------------------------------------------------------

    def load(self, key: str) -> Record | Missing | Moved:
        rows, _ = self._execute(LOAD, (bytes.fromhex(key),))
        return _read(rows[0], self._clock()) if rows else Missing.UNKNOWN

    def create(
        self,
        key: str,
        record: Record,
        ttl: float,
        owner: bytes | None = None,
        instead_of: Record | Missing | None = None,
    ) -> None:
        now = self._clock()
        data, ends = pack(record.fields), now + ttl
        name, minute = bytes.fromhex(key), _sweep(ends)
        row = (data, record.created, now, ends, minute, record.seal, owner)
        self._keep_room()
        if instead_of is not None:
            self._replace(name, row, instead_of)
            return
        _, created = self._execute(CREATE, (name, *row), create=True)
        if not created:
            raise KeyTaken
        if now - self._last_sweep >= SWEEP_EVERY:
            self._last_sweep = now
            self._reserve.fill()
            try:
                self.purge(SWEEP_AT_MOST)
            except StoreError:
                pass  # the record is stored; sweeping can wait

    def save(
        self,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None = None,
        seal: bytes | None = None,
    ) -> None:
        now = self._clock()
        ends, name = now + ttl, bytes.fromhex(key)
        values: tuple[Any, ...]
        statement, values = SAVE, (now, ends, _sweep(ends), name, now)
        if expect is not None:
            statement, values = statement + EXPECTED, (*values, expect)
        if seal is not None:
            statement, values = statement + SEALED, (*values, seal)
        self._keep_room()
        _, saved = self._execute(statement, values, delta)
        if saved:
            return
        if expect is not None:
            there, _ = self._execute(ALIVE, (name, now))
            if there and seal in (None, there[0][0]):
                raise VersionChanged
        raise SessionGone("the session has ended")

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        now = self._clock()
        ends = now + ttl
        values: tuple[Any, ...]
        statement, values = TOUCH, (now, ends, _sweep(ends), bytes.fromhex(key), now)
        if seal is not None:
            statement, values = statement + SEALED, (*values, seal)
        if not self._execute(statement, values)[1]:
            raise SessionGone("the session has ended")

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
        ends, name = now + ttl, bytes.fromhex(old)
        began = None if owner is None else now
        values = (bytes.fromhex(new), now, ends, _sweep(ends), seal, owner, began, name, now)
        leave = None
        if trail is not None:
            over = now + trail.ttl
            leave = LEAVE_TRAIL, (name, trail.ticket, now, now, over, _sweep(over))
        self._keep_room()
        _, moved = self._execute(ROTATE, values, delta, then=leave)
        if not moved:
            raise SessionGone("the session has ended")

    def destroy(self, key: str, expired: bool = False) -> Moved | None:
        name = bytes.fromhex(key)
        if expired:
            self._end(DESTROY_EXPIRED, (name, self._clock()))
            return None
        _, destroyed = self._end(DESTROY, (name,))
        if destroyed:
            return None
        # What is not a record now will be none: at most a trail, and that only goes.
        rows, _ = self._execute(FIND_TRAIL, (name, self._clock()))
        if not rows:
            return None
        self._end(REMOVE_TRAIL, (name,))
        return Moved(rows[0][0])

    def close(self) -> None:
        self._pool.here().close()

    # -- optional powers ------------------------------------------------------------------------

    def purge(self, limit: int) -> int:
        now = self._clock()
        try:
            _, removed = self._execute(PURGE, (_sweep(now), limit + LOOK, now, limit))
        except _Full:
            removed, last = 0, PURGE_FEW
            while last == PURGE_FEW and removed < limit:
                few = min(PURGE_FEW, limit - removed)
                _, last = self._end(PURGE, (_sweep(now), few + LOOK, now, few))
                removed += last
        if removed > SWEEP_AT_MOST:
            self._execute(CHECKPOINT, ())
        return removed

    def expired(self) -> int:
        now = self._clock()
        rows, _ = self._execute(EXPIRED, (_sweep(now), _sweep(now), LOOK, now))
        return rows[0][0] if rows else 0

    def keys(self) -> Iterator[str]:
        last = b""
        while rows := self._execute(KEYS, (self._clock(), last))[0]:
            for (last,) in rows:
                yield last.hex()

    def owned(self, owner: bytes) -> list[str]:
        rows, _ = self._execute(OWNED, (owner, self._clock()))
        # A key of another type is no key: somebody else wrote it.
        return [key.hex() for (key,) in rows if isinstance(key, bytes)]

    def end_owned(self, owner: bytes, but: str | None = None) -> int:
        kept = None if but is None else bytes.fromhex(but)
        return self._end(END_OWNED, (owner, self._clock(), kept))[1]

    def _replace(self, name: bytes, row: tuple[Any, ...], seen: Record | Missing) -> None:
        if isinstance(seen, Record):
            statement, values = REPLACE, (*row, name, seen.version, seen.seal)
        else:
            rows, _ = self._execute(LOAD, (name,))
            if not rows or _read(rows[0], self._clock()) is not seen:
                raise VersionChanged
            statement, values = REPAIR, (*row, name, *rows[0])
        if not self._execute(statement, values)[1]:
            raise VersionChanged

    # -- connections ----------------------------------------------------------------------------

    def _execute(
        self,
        statement: str,
        values: tuple[Any, ...],
        delta: Delta = _NOTHING,
        create: bool = False,
        then: _Statement | None = None,
    ) -> tuple[list[tuple[Any, ...]], int]:
        """Run one statement; return its rows, and how many it changed. If it changed any, run
        *then* with it, or neither.

        Where there is no file yet, and *create* does not ask for one, it holds no rows.
        """
        until, pool = time.monotonic() + self._deadline, self._pool.here()
        try:
            places, connection = pool.take(until)
        except TimeoutError:
            raise StoreTimeout("the file store: every connection is in use") from None
        try:
            if connection is not None and identity(self._path) != connection.file:
                replaced, connection = connection, None
                self._let_go(replaced, until)
            if connection is None:
                connection = self._open(create, until)
                if connection is None:
                    return [], 0
            connection.delta = delta
            execute = connection.sql.execute
            if then is not None:
                execute = partial(connection.execute_both, then)
            try:
                cursor = execute(statement, values)
            except sqlite3.OperationalError as error:
                if not _is_locked(error):
                    raise
                cursor = _patiently(until, lambda: execute(statement, values))
            return cursor.fetchall(), cursor.rowcount
        except sqlite3.IntegrityError:
            raise KeyTaken from None
        except (sqlite3.Error, OSError) as error:
            raise _store_error(error) from error
        finally:
            pool.give_back(places, connection)

    def _end(self, statement: str, values: tuple[Any, ...]) -> tuple[list[tuple[Any, ...]], int]:
        """As `_execute`, for what ends sessions: on a full disk, with the room kept back for it."""
        return self._reserve.let_through(
            lambda: self._execute(statement, values), _Full, lambda: self._execute(SHORTEN, ())
        )

    def _keep_room(self) -> None:
        """Let nothing be stored in the room that was given up for what ends."""
        if not self._reserve.is_whole():
            raise _Full("the file store failed: the disk is full")

    def _open(self, create: bool, until: float) -> _Connection | None:
        for _ in tries(until, LOCK_PAUSE):
            self._check_owner()
            there = identity(self._path)
            if there is None:
                if not create:
                    return None
                self._make_file(until)
                continue
            connection = self._connect(there, until)
            if identity(self._path) == there:
                return connection
            connection.close()  # it was replaced meanwhile: nobody knows which one this is
        raise StoreTimeout("the file store: the file is replaced again and again")

    def _connect(self, there: Identity, until: float) -> _Connection:
        # Without a timeout of SQLite's own: see _patiently.
        sql = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        connection = _Connection(sql, there)
        _opened.here().add(connection)
        try:
            self._check_file(sql, until)
            sql.execute(f"PRAGMA synchronous = {DURABILITY[self._durability]}")
            sql.create_function("apply_delta", 1, connection.apply_delta, deterministic=False)
            connection.sides = sides(self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_owner(self) -> None:
        """Refuse what somebody else could have put there. In folders that nobody else may write
        to, nobody else changes it afterwards either."""
        check_way(str(self._folder.parent))
        check_folder(str(self._folder.parent), "data_dir", sticky=True)
        folder = check_folder(str(self._folder), "data_dir/sessions")
        file = check_file(self._path, "sessions.db")
        for side in SIDES:
            check_file(self._path + side, f"sessions.db{side}")
        if not self._warned and folder and file and may_be_read(folder, file):
            self._warned = True
            emit("misfit", "others may read sessions.db, and what is in it: chmod 600 sessions.db*")

    def _make_file(self, until: float) -> None:
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make(self._path, until)

    def _let_go(self, connection: _Connection, until: float) -> None:
        """Close a connection to a file that is not there any more, and all others to it."""
        try:
            self._replacements.clear(self._path, connection.sides, until)
        finally:
            connection.close()
            self._pool.here().close()
        self._replacements.tell(connection.file)

    def _check_file(self, sql: sqlite3.Connection, until: float) -> None:
        """Prepare a file that is empty, and refuse one that is not ours, without a change."""
        if _patiently(until, lambda: _is_prepared(sql, "BEGIN")):
            return
        _patiently(until, lambda: sql.execute("PRAGMA journal_mode = WAL"))
        _patiently(until, lambda: _is_prepared(sql, "BEGIN IMMEDIATE", prepare=True))

    # -- forks ----------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._pool.here().shut(time.monotonic() + self._deadline)

    def _after_fork(self) -> None:
        self._pool.here().open()


_Statement = tuple[str, tuple[Any, ...]]


class _Connection:
    """A connection, and the delta that its next statement applies."""

    __slots__ = ("delta", "file", "sides", "sql")

    def __init__(self, sql: sqlite3.Connection, file: Identity) -> None:
        self.sql = sql
        self.delta = Delta()
        #: What it is open on, and what SQLite has beside that.
        self.file = file
        self.sides: frozenset[Identity] = frozenset()

    def close(self) -> None:
        _opened.here().discard(self)
        self.sql.close()

    def apply_delta(self, data: bytes) -> bytes:
        return pack(merge(unpack(data), self.delta))

    def execute_both(
        self, then: _Statement, statement: str, values: tuple[Any, ...]
    ) -> sqlite3.Cursor:
        with _transaction(self.sql, "BEGIN IMMEDIATE"):
            cursor = self.sql.execute(statement, values)
            if cursor.rowcount:
                self.sql.execute(*then)
        return cursor


@contextmanager
def _transaction(sql: sqlite3.Connection, begin: str) -> Iterator[None]:
    try:
        sql.execute(begin)
        yield
        sql.execute("COMMIT")
    except BaseException:
        if sql.in_transaction:  # some errors end it
            sql.execute("ROLLBACK")
        raise


def _read(row: tuple[Any, ...], now: float) -> Record | Missing | Moved:
    data, created, accessed, expires, version, seal = row
    try:
        if expires <= now:
            return Missing.UNKNOWN if version == TRAIL else Missing.EXPIRED
        if version == TRAIL:
            return Moved(bytes(data))
        fields = unpack(data)
    except (ValueError, TypeError, RecursionError):
        return Missing.CORRUPTED
    if type(created) is not float or type(accessed) is not float or type(seal) is not bytes:
        return Missing.CORRUPTED
    return new_record((fields, created, accessed, expires, version, seal))


def _sweep(ends: float) -> int:
    return NEVER if ends == math.inf else math.ceil(ends / SWEEP_GRID)


def _pragma(sql: sqlite3.Connection, name: str) -> int:
    value: int = sql.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _is_prepared(sql: sqlite3.Connection, begin: str, prepare: bool = False) -> bool:
    """Whether the file has our schema; if not, *prepare* it: in one transaction, because another
    process may be at the same. Raises `StoreError` if the file is neither ours nor empty."""
    with _transaction(sql, begin):
        application, version = _pragma(sql, "application_id"), _pragma(sql, "user_version")
        if application != APPLICATION_ID and (application or _pragma(sql, "schema_version")):
            raise StoreError("the file store: the file is another program's, left as it is")
        if version > SCHEMA_VERSION:
            raise StoreError("the file store: the file is of a newer version, left as it is")
        if version < SCHEMA_VERSION and prepare:
            for statement in UPGRADE if version else SCHEMA:
                sql.execute(statement)
    return version == SCHEMA_VERSION


def _patiently(until: float, call: Callable[[], T]) -> T:
    """Repeat *call* as long as there is a lock in its way, and time left.

    SQLite would wait by itself, but it sleeps up to 100 ms between two tries, and a few busy
    writers never leave the lock free when it wakes up.
    """
    for _ in tries(until, LOCK_PAUSE):
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not _is_locked(error):
                raise
    raise StoreTimeout("the file store: another process held the file too long")


def _is_locked(error: BaseException) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"))


class _Full(StoreError):
    """There is no room on the disk."""


def _store_error(error: sqlite3.Error | OSError) -> StoreError:
    """What happened, without data and without the path."""
    if isinstance(error, TimeoutError):
        return StoreTimeout("the file store: another process held the folder too long")
    if isinstance(error, OSError):
        kind = _Full if error.errno == errno.ENOSPC else StoreError
        return kind(f"the file store failed: {error.strerror or type(error).__name__}")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    kind = _Full if name in FULL else StoreError
    return kind(f"the file store failed: {name}")


#: What other threads are using at a fork must not even be collected in the child: see rule 3.
_opened: Final[ProcessLocal[set[_Connection]]] = ProcessLocal(set)
