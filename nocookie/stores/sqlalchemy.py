"""Sessions in one table of a database, by SQLAlchemy: PostgreSQL, SQLite, and others.

The rules of this file:

1. A change is one UPDATE, guarded by all that must still hold: the key, that the record lives, the
   version or the seal if the caller named one. There is no moment between reading and writing.
2. So that one statement can apply a delta to the record as it is by then, `data` is a journal: the
   fields, and after them the deltas since, appended by the database. A reader plays it. When the
   journal has outgrown the record, and wherever a database cannot append bytes, the record is
   read, merged here, and written back on the condition that its version is still the one read.
3. Statements run in AUTOCOMMIT: one trip each, no transaction that a lost process leaves open.
4. One call is over by the deadline, also if the server is frozen: see `_Watchdog`.
5. A forked child opens connections of its own and never touches its parent's.
6. Driver exceptions become `StoreError` here. Their texts quote rows, so none goes along.
"""

from __future__ import annotations

import math
import os
import queue
import random
import secrets
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from nocookie.errors import ConfigError, SessionGone, StoreError, StoreTimeout
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Record,
    VersionChanged,
    merge,
    new_record,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from sqlalchemy import Delete, Engine, Insert, MetaData, Select, Table, Update
    from sqlalchemy.engine import URL, Connection, Dialect, ExceptionContext

__all__ = ["SqlAlchemyStore", "table"]

#: The version of a row's layout. A newer one is refused, and kept.
FORMAT: Final = 1

#: A journal may be so many bytes longer than twice the record it began with. About 25 small saves:
#: so few pay for writing the record anew, and playing the rest costs a reader less than a trip.
SLACK: Final = 2048

#: A `create` sweeps at most once in so many seconds, and removes at most so many records: both
#: keep the sweep invisible. Busier sites run `nocookie purge`.
SWEEP_EVERY: Final = 30.0
SWEEP_AT_MOST: Final = 100

#: In seconds. The index is by the minute after `expires`: so most saves leave it as it is, and
#: PostgreSQL can write the new row beside the old one.
SWEEP_GRID: Final = 60.0
#: The `sweep` and the `expires` of what never expires. Not every database can store infinity.
NEVER: Final = 2**63 - 1
FAR: Final = 1e300

#: In the minute that is not over yet, expired records lie among living ones, and the index does
#: not tell which. With many sessions there are many, so a sweep looks at no more than these.
LOOK: Final = 100

#: How many keys a page of `keys` has.
PAGE: Final = 1000

#: How long at most to wait before the next try, where others were quicker: in seconds.
PAUSE: Final = 0.005

#: The part of the deadline that a statement may take before PostgreSQL ends it. It comes before
#: the watchdog: a server that answers keeps its connection.
SERVER_SHARE: Final = 0.9

#: SQLSTATEs, and what they stand for, where it is not just an error.
RETRY: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock: undone by itself
TOO_LONG: Final = frozenset({"57014", "55P03"})  # statement_timeout, lock_timeout
NO_TABLE: Final = "42P01"
#: The same as error numbers of MySQL and MariaDB.
MYSQL_RETRY: Final = frozenset({1205, 1213})
MYSQL_TOO_LONG: Final = frozenset({1969, 3024})
MYSQL_NO_TABLE: Final = 1146


def table(
    metadata: MetaData, table_name: str = "nocookie_sessions", schema: str | None = None
) -> Table:
    """Return the table of the store, for migrations: put it into the metadata Alembic knows."""
    from sqlalchemy import BigInteger, Column, Double, Index, LargeBinary, SmallInteger, Table
    from sqlalchemy.dialects import mysql

    both = ("mysql", "mariadb")
    sweep = Column("sweep", BigInteger, nullable=False)
    return Table(
        table_name,
        metadata,
        Column("key", LargeBinary(32).with_variant(mysql.BINARY(32), *both), primary_key=True),
        Column("data", LargeBinary().with_variant(mysql.LONGBLOB(), *both), nullable=False),
        # How long `data` is, and how long it was when it was last written as a whole.
        Column("size", BigInteger, nullable=False),
        Column("whole", BigInteger, nullable=False),
        Column("created", Double, nullable=False),
        Column("accessed", Double, nullable=False),
        Column("expires", Double, nullable=False),
        sweep,
        Column("version", BigInteger, nullable=False),
        Column("seal", LargeBinary(255).with_variant(mysql.VARBINARY(255), *both), nullable=False),
        Column("format", SmallInteger, nullable=False),
        Index(f"ix_{table_name}_sweep", sweep),
        schema=schema,
    )


class SqlAlchemyStore:
    """Sessions in the table *table_name* of the database at *url*, or of *engine*.

    Exactly one of the two; an *engine* is used as it is, with its pool. *create_table* makes the
    table when the first session is stored. *deadline* is in seconds, for one call, connecting
    included. Raises `ConfigError`; that the database is down shows at the first call.
    """

    shared = True

    def __init__(
        self,
        *,
        url: str | None = None,
        engine: Engine | None = None,
        table_name: str = "nocookie_sessions",
        schema_name: str | None = None,
        create_table: bool = False,
        deadline: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            from sqlalchemy import MetaData
        except ImportError as error:
            raise ConfigError(
                "type = 'sqlalchemy' needs SQLAlchemy: pip install nocookie[sqlalchemy]"
            ) from error
        if url is not None and engine is None:
            self._engine, self._ours = _make_engine(url, deadline), True
        elif engine is not None and url is None:
            self._engine, self._ours = engine.execution_options(isolation_level="AUTOCOMMIT"), False
        else:
            raise ConfigError("type = 'sqlalchemy' needs either url or engine")
        _check_engine(self._engine)
        self._table = table(MetaData(), table_name, schema_name)
        self._sql = _Statements(self._table, self._engine.dialect.name)
        self._create_table = create_table
        self._deadline = deadline
        self._clock = clock
        self._last_sweep = clock()
        self._closing = threading.Lock()
        # An application's pool is not ours to empty.
        self._gate = _Gate() if self._ours and self._engine.dialect.name == "sqlite" else None
        _living.add(self)

    # -- the contract ---------------------------------------------------------------------------

    def load(self, key: str) -> Record | Missing:
        with self._call() as call:
            return self._look(call, bytes.fromhex(key), self._clock(), again=True)

    def create(self, key: str, record: Record, ttl: float) -> None:
        now = self._clock()
        data = _entry(record.fields)
        values = {
            "new": bytes.fromhex(key),
            "delta": data,
            "n": len(data),
            "began": record.created,
            "first": secrets.randbits(48),
            "new_seal": record.seal,
            **_renewal(now, ttl),
        }
        with self._call() as call:
            call.create(values)
        if now - self._last_sweep >= SWEEP_EVERY:
            self._last_sweep = now
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
        with self._call() as call:
            self._change(call, key, delta, ttl, expect, seal)

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        values = {"old": bytes.fromhex(key), "sealed": seal, **_renewal(self._clock(), ttl)}
        with self._call() as call:
            if not call.execute(self._sql.touch[seal is not None], values)[1]:
                raise SessionGone("the session has ended")

    def rotate(self, old: str, new: str, delta: Delta, seal: bytes, ttl: float) -> None:
        moved = {"new": bytes.fromhex(new), "new_seal": seal}
        with self._call() as call:
            self._change(call, old, delta, ttl, None, None, moved)

    def destroy(self, key: str) -> None:
        with self._call() as call:
            call.execute(self._sql.destroy, {"old": bytes.fromhex(key)}, again=True)

    def close(self) -> None:
        """Close the connections. Those of an application's own engine are its own to close."""
        if self._ours:
            with self._closing:
                pool = self._engine.pool
                self._engine.dispose()
                pool.dispose()  # what came back while the pools were changed

    # -- optional powers ------------------------------------------------------------------------

    def purge(self, limit: int) -> int:
        now = self._clock()
        values = {"now": now, "minute": _sweep(now), "limit": limit, "look": limit + LOOK}
        with self._call() as call:
            if self._sql.direct:
                return call.execute(self._sql.purge, values)[1]
            expired, _ = call.execute(self._sql.expired, values)
            keys = [key for (key,) in expired]
            return call.execute(self._sql.purge_keys, {"keys": keys, "now": now})[1] if keys else 0

    def expired(self) -> int:
        now = self._clock()
        values = {"now": now, "minute": _sweep(now), "look": LOOK}
        with self._call() as call:
            rows, _ = call.execute(self._sql.count, values, again=True)
        return rows[0][0] if rows else 0

    def keys(self) -> Iterator[str]:
        last = b""
        while True:
            with self._call() as call:
                values = {"now": self._clock(), "last": last}
                rows, _ = call.execute(self._sql.keys, values, again=True)
            if not rows:
                return
            for (last,) in rows:
                yield last.hex()

    # -- changes --------------------------------------------------------------------------------

    def _change(
        self,
        call: _Call,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None,
        seal: bytes | None,
        moved: Mapping[str, Any] | None = None,
    ) -> None:
        """Apply *delta*, and renew the record; with *moved*, under another key and seal."""
        now = self._clock()
        values = {"old": bytes.fromhex(key), "sealed": seal, **_renewal(now, ttl), **(moved or {})}
        moves, sealed = moved is not None, seal is not None
        append = self._sql.direct and not delta.cleared
        # A clear needs no look at what is there: it is a new journal. Nor does what is appended.
        data = _entry(delta.set, delta.deleted if append else ())
        blind = append or delta.cleared
        while True:
            if blind:
                statement = self._sql.change[append, moves, expect is not None, sealed]
                new = {"delta": data, "n": len(data), "expect": expect}
                if call.execute(statement, {**values, **new})[1]:
                    return
            # It is gone, or has another version, or its journal is full: look.
            record = self._look(call, values["old"], now)
            if record is Missing.CORRUPTED:
                raise StoreError("the database store: the record is corrupted, left as it is")
            if isinstance(record, Missing) or seal not in (None, record.seal):
                raise SessionGone("the session has ended")
            if expect not in (None, record.version):
                raise VersionChanged
            if not delta.cleared:
                whole = _entry(merge(record.fields, delta))
                new = {"delta": whole, "n": len(whole), "expect": record.version}
                if call.execute(self._sql.change[False, moves, True, sealed], {**values, **new})[1]:
                    return
            call.pause()

    def _look(self, call: _Call, key: bytes, now: float, again: bool = False) -> Record | Missing:
        rows, _ = call.execute(self._sql.load, {"old": key}, again=again)
        return _record(rows[0], now) if rows else Missing.UNKNOWN

    def _call(self) -> _Call:
        return _Call(self, self._deadline)

    # -- forks ----------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        # SQLite keeps count of a process's locks in memory; a child that inherits the count, but
        # not the locks, may wait for one for ever, or read what nobody protects.
        if self._gate is not None:
            self._gate.shut(time.monotonic() + self._deadline)
            self._engine.dispose()

    def _after_fork_in_parent(self) -> None:
        if self._gate is not None:
            self._gate.open()

    def _after_fork_in_child(self) -> None:
        self._closing = threading.Lock()
        if self._gate is not None:
            self._gate = _Gate()
        # Not even collected: some drivers say goodbye then, on the parent's socket.
        _inherited.append(self._engine.pool)
        self._engine.dispose(close=False)


# -- rows ----------------------------------------------------------------------------------------
#
# `data` is one or more entries: 4 bytes, the length of what is set; 4 bytes, the length of what is
# deleted; what is set, as `pack` makes it; the names that are deleted, packed with empty values,
# or nothing.


def _entry(changes: Mapping[str, bytes], deleted: Collection[str] = ()) -> bytes:
    there = pack(changes)
    gone = pack(dict.fromkeys(deleted, b"")) if deleted else b""
    return b"".join((struct.pack(">II", len(there), len(gone)), there, gone))


def _play(data: bytes) -> dict[str, bytes]:
    """Return the fields of a journal. Raises ValueError if it is not one, to the last byte."""
    fields: dict[str, bytes] = {}
    at = 0
    while True:
        try:
            changed, gone = struct.unpack_from(">II", data, at)
        except struct.error:
            raise ValueError("cut short") from None
        at += 8
        if gone:
            for name in unpack(data[at + changed : at + changed + gone]):
                fields.pop(name, None)
        fields.update(unpack(data[at : at + changed]))
        at += changed + gone
        if at == len(data):
            return fields


def _record(row: Any, now: float) -> Record | Missing:
    data, size, created, accessed, expires, version, seal, format = row
    try:
        if expires <= now:
            return Missing.EXPIRED
        if format != FORMAT or len(data) != size:
            return Missing.CORRUPTED
        if not all(map(math.isfinite, (created, accessed, expires))):
            return Missing.CORRUPTED
        fields = _play(data)
    except (ValueError, TypeError):
        return Missing.CORRUPTED
    if type(version) is not int or type(seal) is not bytes:
        return Missing.CORRUPTED
    ends = math.inf if expires >= FAR else float(expires)
    return new_record((fields, float(created), float(accessed), ends, version, seal))


def _renewal(now: float, ttl: float) -> dict[str, Any]:
    ends = min(now + ttl, FAR)
    return {"now": now, "ends": ends, "minute": _sweep(ends)}


def _sweep(ends: float) -> int:
    return NEVER if ends >= FAR else math.ceil(ends / SWEEP_GRID)


# -- statements ----------------------------------------------------------------------------------


class _Statements:
    """Every statement of the store, made once."""

    #: Whether the database appends bytes and replaces on conflict. If not, we read and compare.
    direct: bool
    load: Select[Any]
    insert: Insert
    replace: Update
    #: By: appends, moves, compares the version, compares the seal.
    change: dict[tuple[bool, bool, bool, bool], Update]
    #: By: compares the seal.
    touch: dict[bool, Update]
    destroy: Delete
    purge: Delete
    expired: Select[Any]
    count: Select[Any]
    purge_keys: Delete
    keys: Select[Any]

    def __init__(self, table: Table, dialect: str) -> None:
        from sqlalchemy import bindparam, delete, func, insert, select, update

        self.direct = dialect in ("postgresql", "sqlite")
        self._dialect = dialect
        self._table, c = table, table.c
        given = bindparam
        self.load = select(
            c.data, c.size, c.created, c.accessed, c.expires, c.version, c.seal, c.format
        ).where(c.key == given("old"))
        row = {
            "key": given("new"),
            "data": given("delta"),
            "size": given("n"),
            "whole": given("n"),
            "created": given("began"),
            "accessed": given("now"),
            "expires": given("ends"),
            "sweep": given("minute"),
            # At random, so that no record passes for an earlier one under the same key.
            "version": given("first"),
            "seal": given("new_seal"),
            "format": FORMAT,
        }
        self.insert = insert(table).values(row)
        rest = {name: value for name, value in row.items() if name != "key"}
        self.replace = (
            update(table).values(rest).where(c.key == given("new"), c.expires <= given("now"))
        )
        if self.direct:
            self.insert = self._insert_or_replace(row)
        both = (False, True)
        self.change = {
            (append, moves, expect, seal): self._change(append, moves, expect, seal)
            for append in both
            for moves in both
            for expect in both
            for seal in both
        }
        self.touch = {seal: self._touch(seal) for seal in both}
        self.destroy = delete(table).where(c.key == given("old"))
        # The earliest come first: of minutes that are over, where all has expired.
        first = select(c.key).where(c.sweep <= given("minute")).order_by(c.sweep)
        looked_at = first.limit(given("look")).subquery()
        one = table.alias()
        self.expired = (
            select(one.c.key)
            .join(looked_at, one.c.key == looked_at.c.key)
            .where(one.c.expires <= given("now"))
            .limit(given("limit"))
        )
        over = select(func.count()).where(c.sweep < given("minute")).scalar_subquery()
        latest = select(c.expires).where(c.sweep == given("minute")).limit(given("look")).subquery()
        late = select(func.count()).where(latest.c.expires <= given("now")).scalar_subquery()
        self.count = select(over + late)
        # Whoever holds a row is renewing it, or purging too.
        skipping = self.expired.with_for_update(skip_locked=True, of=one)
        self.purge = delete(table).where(c.key.in_(skipping.scalar_subquery()))
        self.purge_keys = delete(table).where(
            c.key.in_(given("keys", expanding=True)), c.expires <= given("now")
        )
        self.keys = (
            select(c.key)
            .where(c.expires > given("now"), c.key > given("last"))
            .order_by(c.key)
            .limit(PAGE)
        )

    def _insert_or_replace(self, row: Mapping[str, Any]) -> Insert:
        from sqlalchemy.dialects import postgresql, sqlite

        c = self._table.c
        statement = (postgresql if self._dialect == "postgresql" else sqlite).insert(self._table)
        inserted: Insert = statement.values(row).on_conflict_do_update(
            index_elements=[c.key],
            set_={name: statement.excluded[name] for name in row if name != "key"},
            where=c.expires <= statement.excluded.accessed,
        )
        return inserted.execution_options(preserve_rowcount=True)

    def _change(self, append: bool, moves: bool, expect: bool, seal: bool) -> Update:
        from sqlalchemy import bindparam, update

        c, given = self._table.c, bindparam
        values: dict[str, Any] = {
            "accessed": given("now"),
            "expires": given("ends"),
            "sweep": given("minute"),
            "version": c.version + 1,
        }
        conditions = [c.key == given("old"), c.expires > given("now"), c.format == FORMAT]
        if append:
            values |= {"data": self._appended(), "size": c.size + given("n")}
            conditions += [c.size + given("n") <= 2 * c.whole + SLACK]
            if self._dialect == "sqlite":
                # SQLite appends bytes as text: in UTF-16 it cuts them to an even number.
                conditions += [_text("(SELECT encoding FROM pragma_encoding) = 'UTF-8'")]
        else:
            values |= {"data": given("delta"), "size": given("n"), "whole": given("n")}
        if moves:
            values |= {"key": given("new"), "seal": given("new_seal")}
        if expect:
            conditions += [c.version == given("expect")]
        if seal:
            conditions += [c.seal == given("sealed")]
        return update(self._table).values(values).where(*conditions)

    def _appended(self) -> Any:
        from sqlalchemy import LargeBinary, bindparam, cast

        joined = self._table.c.data.op("||")(bindparam("delta", type_=LargeBinary))
        return cast(joined, LargeBinary) if self._dialect == "sqlite" else joined

    def _touch(self, seal: bool) -> Update:
        from sqlalchemy import bindparam, case, update

        c, given = self._table.c, bindparam
        # Who comes from a clock that is behind does not take back what another has given.
        ahead = c.accessed > given("now")
        values = {
            "accessed": case((ahead, c.accessed), else_=given("now")),
            "expires": case((ahead, c.expires), else_=given("ends")),
            "sweep": case((ahead, c.sweep), else_=given("minute")),
        }
        conditions = [c.key == given("old"), c.expires > given("now")]
        if seal:
            conditions += [c.seal == given("sealed")]
        return update(self._table).values(values).where(*conditions)


def _text(sql: str) -> Any:
    from sqlalchemy import text

    return text(sql)


# -- calls ---------------------------------------------------------------------------------------


class _Call:
    """One call of the store: at most one connection, and a moment by which all is over."""

    def __init__(self, store: SqlAlchemyStore, deadline: float) -> None:
        self._engine = store._engine
        self._table = store._table
        self._sql = store._sql
        self._create_table = store._create_table
        self._gate = store._gate
        self.until = time.monotonic() + deadline
        #: Set by the watchdog.
        self.late = False
        self._lock = threading.Lock()
        self._socket: int | None = None
        self._connection: Connection | None = None
        self._pool: Any = None
        self._astray = False
        self._fresh = False
        self._outer: _Call | None = None

    def __enter__(self) -> _Call:
        if self._gate is not None:
            self._gate.enter(self.until)
        self._outer = getattr(_here, "call", None)
        _here.call = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _here.call = self._outer
        try:
            self._release()
        finally:
            if self._gate is not None:
                self._gate.leave()

    def execute(
        self,
        statement: Any,
        values: Mapping[str, Any],
        *,
        again: bool = False,
        create: bool = False,
    ) -> tuple[list[Any], int]:
        """Run one statement; return its rows, and how many it changed.

        Where there is no table yet, and *create* does not ask for one, it holds no rows. With
        *again*, the statement may run twice: once more if the connection broke.
        """
        while True:
            outcome = self._try(statement, values)
            if isinstance(outcome, tuple):
                return outcome
            if isinstance(outcome, _NoTable) and self._create_table:
                if not create:
                    return [], 0
                self._make_table()
            elif isinstance(outcome, _Broken) and again:
                again = False
            elif not isinstance(outcome, _Busy):
                raise outcome
            self.pause()

    def create(self, values: Mapping[str, Any]) -> None:
        """Insert a row. Raises `KeyTaken` if a living one is there."""
        try:
            created = self.execute(self._sql.insert, values, create=True)[1]
        except KeyTaken:
            created = self.execute(self._sql.replace, values)[1]
        if not created:
            raise KeyTaken

    def pause(self) -> None:
        """Give others time to be done. Raises `StoreTimeout` if there is none left."""
        if self._is_over():
            raise StoreTimeout("the database store: others kept it busy")
        time.sleep(random.uniform(0, PAUSE))  # noqa: S311 - only to spread out

    def _is_over(self) -> bool:
        return self.late or time.monotonic() >= self.until

    def _try(self, statement: Any, values: Mapping[str, Any]) -> tuple[list[Any], int] | Exception:
        """Return the outcome, or what went wrong: raised where no driver's exception is being
        handled, ours keeps none of its data."""
        from sqlalchemy.exc import DBAPIError, IntegrityError
        from sqlalchemy.exc import TimeoutError as PoolTimeout

        try:
            result = self._connected().execute(statement, values)
            rows = list(result.fetchall()) if result.returns_rows else []
            return rows, result.rowcount
        except IntegrityError:
            return KeyTaken()
        except PoolTimeout:
            return StoreTimeout("the database store: every connection is in use")
        except StoreError as error:
            return error
        except DBAPIError as error:
            connected = self._connection is not None
            failure = _failure(error, self._is_over(), connected)
            if isinstance(failure, _Broken):
                self._release()
            return failure
        except Exception as error:  # what drivers say to a URL that they cannot read, for one
            return StoreError(f"the database store failed: {type(error).__name__}")

    def _make_table(self) -> None:
        """Make the table and its index. Other processes may be at the same: theirs will do."""
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.schema import CreateIndex, CreateTable

        try:
            connection = self._connected()
            if not self._sql.direct:
                self._table.create(connection, checkfirst=True)
                return
            # Both or nothing: a process may be killed in between.
            immediate = " IMMEDIATE" if self._engine.dialect.name == "sqlite" else ""
            connection.exec_driver_sql(f"BEGIN{immediate}")
            connection.execute(CreateTable(self._table, if_not_exists=True))
            for index in self._table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
            connection.exec_driver_sql("COMMIT")
            return
        except DBAPIError as error:
            failure = _failure(error, self._is_over())
        self._release()  # and with it, what was begun
        if not isinstance(failure, _Busy) and not self._has_table():
            raise failure

    def _has_table(self) -> bool:
        from sqlalchemy import inspect
        from sqlalchemy.exc import SQLAlchemyError

        try:
            there = inspect(self._connected()).has_table
            return there(self._table.name, schema=self._table.schema)
        except SQLAlchemyError:
            return False

    # -- the connection

    def _connected(self) -> Connection:
        while self._connection is None:
            self._pool, self._fresh = self._engine.pool, False
            connection = self._engine.connect()
            self._connection = connection
            self.watch(connection.connection.dbapi_connection)
            # If the store was closed meanwhile, nobody knows which pool this one is of.
            self._astray = self._engine.pool is not self._pool
            if not self._fresh and self._is_stale():
                connection.invalidate()
                self._release()
        return self._connection

    def _release(self) -> None:
        self._unwatch()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.late or self._astray:
            connection.invalidate()
        connection.close()
        if self._engine.pool is not self._pool:  # the store was closed meanwhile
            self._pool.dispose()

    def _is_stale(self) -> bool:
        """Whether an idle connection has something to say: mostly, that the server is gone. That
        is known before anything is sent, and costs no trip."""
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    # -- the deadline

    def connect(self, connect: Callable[[], Any]) -> Any:
        """Return what *connect* does, within the deadline: in a thread, as there is no socket yet
        that could be shut. What comes later is closed."""
        done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        lock, waiting = threading.Lock(), [True]

        def run() -> None:
            connection, failure = None, None
            try:
                connection = connect()
            except BaseException as error:
                failure = error
            with lock:
                if waiting[0]:
                    done.put((connection, failure))
                    return
            if connection is not None:
                connection.close()

        threading.Thread(target=run, name="nocookie-connect", daemon=True).start()
        outcome = None
        try:
            outcome = done.get(timeout=max(0.0, self.until - time.monotonic()))
        except queue.Empty:
            with lock:
                waiting[0] = False
                if not done.empty():  # it came just now
                    outcome = done.get()
        if outcome is None:
            raise StoreTimeout("the database store: no connection within the deadline")
        connection, failure = outcome
        if failure is not None:
            raise failure
        self._fresh = True
        self.watch(connection)
        return connection

    def watch(self, connection: Any) -> None:
        """From now on until the end of the call, the deadline holds for this connection."""
        fileno = getattr(connection, "fileno", None)
        if self._socket is None and fileno is not None and hasattr(select, "poll"):
            # A duplicate: its number stays ours, whatever the driver closes meanwhile.
            self._socket = os.dup(fileno())
            _watchdog.watch(self)

    def _unwatch(self) -> None:
        if self._socket is not None:
            _watchdog.forget(self)
            with self._lock:
                os.close(self._socket)
                self._socket = None

    def shut(self) -> None:
        """By the watchdog: end what is blocked in the driver, as if the server had gone."""
        with self._lock:
            if self._socket is not None and not self.late:
                self.late = True
                try:
                    with socket.socket(fileno=os.dup(self._socket)) as one:
                        one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the other side was quicker


class _Gate:
    """Lets calls through, and is shut for a fork when none is under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shut = False
        self._inside = 0

    def enter(self, until: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._shut, until - time.monotonic()):
                raise StoreTimeout("the database store: a fork took too long")
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def shut(self, until: float) -> None:
        """Wait until no call is under way, but not for ever: the fork comes all the same."""
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: not self._inside, until - time.monotonic())

    def open(self) -> None:
        with self._changed:
            self._shut = False
            self._changed.notify_all()


class _Watchdog:
    """Shuts the sockets of calls that outlive their deadline.

    A driver that waits for a frozen server waits for ever: no timeout of the server holds then, nor
    does the kernel's keepalive, which the kernel answers. A thread looks every TICK whether a call
    is due. So a call pays for two operations on a set, and nobody is woken by it.
    """

    #: In seconds. The last look before a deadline counts: a call ends before it, not after.
    TICK: Final = 0.05
    #: After so many ticks without a call the thread sleeps until there is one.
    QUIET: Final = 200

    def __init__(self) -> None:
        self._calls: set[_Call] = set()
        self._starting = threading.Lock()
        self._started = False
        self._asleep = False
        self._wake = threading.Event()

    def watch(self, call: _Call) -> None:
        self._calls.add(call)
        if not self._started:
            with self._starting:
                if not self._started:
                    threading.Thread(
                        target=self._run, name="nocookie-watchdog", daemon=True
                    ).start()
                    self._started = True
        elif self._asleep:
            self._wake.set()

    def forget(self, call: _Call) -> None:
        self._calls.discard(call)

    def _run(self) -> None:
        quiet = 0
        while True:
            time.sleep(self.TICK)
            due = time.monotonic() + self.TICK
            calls = self._calls.copy()
            for call in calls:
                if call.until <= due:
                    call.shut()
            quiet = 0 if calls else quiet + 1
            if quiet > self.QUIET:
                self._wake.clear()
                self._asleep = True
                if not self._calls:  # only now: who came before we slept did not wake us
                    self._wake.wait()
                self._asleep = False
                quiet = 0


# -- failures ------------------------------------------------------------------------------------


class _NoTable(StoreError):
    """The table is missing."""


class _Broken(StoreError):
    """The connection is."""


class _Busy(StoreTimeout):
    """Others were quicker, and nothing was done."""


def _failure(error: Any, late: bool, connected: bool = True) -> StoreError:
    """What happened, without data."""
    driver = error.orig
    state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
    number = driver.args[0] if getattr(driver, "args", None) else None
    name = getattr(driver, "sqlite_errorname", "")
    if late:
        return StoreTimeout("the database store: no answer within the deadline")
    if state in TOO_LONG or number in MYSQL_TOO_LONG:
        return StoreTimeout("the database store: the server took too long")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return _Busy("the database store: another process held the file too long")
    if state in RETRY or number in MYSQL_RETRY:
        return _Busy("the database store: others kept it busy")
    if state == NO_TABLE or number == MYSQL_NO_TABLE or str(number).startswith("no such table"):
        return _NoTable(
            "the database store: there is no such table: set create_table = true, or run the "
            "migration"
        )
    what = " ".join(filter(None, (type(driver).__name__, name or state)))
    if not connected:
        return StoreError(f"the database store: it cannot be reached: {what}")
    if error.connection_invalidated:
        return _Broken(f"the database store: the connection broke: {what}")
    return StoreError(f"the database store failed: {what}")


# -- engines -------------------------------------------------------------------------------------


def _make_engine(url: str, deadline: float) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        where = make_url(url)
        _refuse_memory(where)
        engine = create_engine(
            where,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_timeout=deadline,
            connect_args=_driver_settings(where, deadline),
        )
    except ImportError as error:
        raise ConfigError(f"url needs a driver that is not installed: {error.name}") from error
    except ConfigError:
        raise
    except (ArgumentError, TypeError, ValueError) as error:  # a port that is no number, say
        unknown = f"url is not one that SQLAlchemy knows: {type(error).__name__}"
        raise ConfigError(unknown) from None  # the text may quote the password
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _driver_settings(url: URL, deadline: float) -> dict[str, Any]:
    """What the driver can do for the deadline by itself, unless the URL says otherwise."""
    settings: dict[str, Any] = {}
    whole = math.ceil(deadline)
    driver = url.get_driver_name()
    if driver in ("psycopg", "psycopg2"):
        timeout = int(deadline * SERVER_SHARE * 1000)
        settings = {"connect_timeout": max(2, whole), "options": f"-cstatement_timeout={timeout}"}
    elif driver in ("pymysql", "mysqldb"):
        settings = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), whole)
    elif driver == "pysqlite":
        # SQLite would sleep up to 100 ms between two tries; `pause` is quicker.
        settings = {"timeout": 0}
    return {name: value for name, value in settings.items() if name not in url.query}


def _check_engine(engine: Engine) -> None:
    from sqlalchemy import event

    if engine.dialect.is_async:
        raise ConfigError("type = 'sqlalchemy' needs a synchronous driver")
    _refuse_memory(engine.url)
    if engine.dialect.name == "sqlite":
        return  # there is no server that could freeze
    for name, listener in (("do_connect", _on_connect), ("handle_error", _on_error)):
        if not event.contains(engine, name, listener):
            event.listen(engine, name, listener)


def _refuse_memory(url: URL) -> None:
    if url.get_backend_name() == "sqlite" and (
        not url.database or ":memory:" in url.database or url.query.get("mode") == "memory"
    ):
        raise ConfigError("an SQLite database in memory is of one connection: use type = 'memory'")


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _on_connect(dialect: Dialect, record: Any, arguments: Any, keywords: Any) -> Any:
    """Connections of an application that uses its engine by itself are none of our business."""
    call = getattr(_here, "call", None)
    return call and call.connect(lambda: dialect.connect(*arguments, **keywords))


def _on_error(context: ExceptionContext) -> None:
    # One statement was late: that is no reason to close every connection of the pool.
    call = getattr(_here, "call", None)
    if call is not None and call.late:
        context.invalidate_pool_on_disconnect = False


_here = threading.local()
_watchdog = _Watchdog()
_living: weakref.WeakSet[SqlAlchemyStore] = weakref.WeakSet()
_inherited: list[Any] = []


#: One fork at a time: a second one would open the gates that the first has shut.
_forking = threading.RLock()


def _before_fork() -> None:
    _forking.acquire()
    for store in list(_living):
        store._before_fork()


def _after_fork_in_parent() -> None:
    for store in list(_living):
        store._after_fork_in_parent()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking, _watchdog
    _forking = threading.RLock()
    _watchdog = _Watchdog()
    for store in list(_living):
        store._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
