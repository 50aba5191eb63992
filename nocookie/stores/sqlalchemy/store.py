"""The contract, in statements."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nocookie.errors import ConfigError, SessionGone, StoreError, StoreTimeout
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
)
from nocookie.stores.sqlalchemy.calls import BUSY, Call, Gate
from nocookie.stores.sqlalchemy.engines import check_engine, make_engine
from nocookie.stores.sqlalchemy.failures import Full
from nocookie.stores.sqlalchemy.rows import FAR, entry, record_of, renewal, sweep_minute, table
from nocookie.stores.sqlalchemy.sqlite import reserve_for
from nocookie.stores.sqlalchemy.statements import LEAVES_TRAIL, LOOK, MOVES, STAYS, Statements

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["SqlAlchemyStore"]

T = TypeVar("T")

#: A `create` sweeps at most once in so many seconds, and removes at most so many records: both
#: keep the sweep invisible. Busier sites run `nocookie purge`.
SWEEP_EVERY: Final = 30.0
SWEEP_AT_MOST: Final = 100
#: How many records a sweep of a full disk removes at a time.
PURGE_FEW: Final = 50

_NOTHING: Final[Mapping[str, Any]] = {}
_inherited: Final[list[Any]] = []


class SqlAlchemyStore(ForkAware):
    """Sessions in the table *table_name* of the database at *url*, or of *engine*.

    Exactly one of the two; an *engine* is used as it is, with its pool. *create_table* makes the
    table when the first session is stored. *deadline* is in seconds, for one call, connecting
    included. Raises `ConfigError`; that the database is down shows at the first call.
    """

    shared = True
    rotates_in_one_step = True

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
            self._engine, self._ours = make_engine(url, deadline), True
        elif engine is not None and url is None:
            self._engine, self._ours = engine.execution_options(isolation_level="AUTOCOMMIT"), False
        else:
            raise ConfigError("type = 'sqlalchemy' needs either url or engine")
        check_engine(self._engine)
        self._sql = Statements(
            table(MetaData(), table_name, schema_name), self._engine.dialect.name
        )
        self._create_table = create_table
        self._deadline = deadline
        self._clock = clock
        self._last_sweep = clock()
        self._reserve = reserve_for(self._engine) if self._ours else None
        # An application's pool is not ours to empty.
        gated = self._ours and self._engine.dialect.name == "sqlite"
        self._process = ProcessLocal(partial(_Process, self._engine, gated, os.getpid()))
        self._hear_of_forks()

    # -- the contract ---------------------------------------------------------------------------

    def load(self, key: str) -> Record | Missing | Moved:
        with self._call() as call:
            return self._look(call, bytes.fromhex(key), self._clock(), again=True)

    def create(
        self,
        key: str,
        record: Record,
        ttl: float,
        owner: bytes | None = None,
        instead_of: Record | Missing | None = None,
    ) -> None:
        now = self._clock()
        data = entry(record.fields)
        values = {
            "new": bytes.fromhex(key),
            "delta": data,
            "n": len(data),
            "began": record.created,
            "first": secrets.randbits(48),
            "new_seal": record.seal,
            "whose": owner,
            **renewal(now, ttl),
        }
        self._keep_room()
        with self._call() as call:
            if instead_of is not None:
                self._replace(call, values, instead_of)
                return
            try:
                created = call.execute(self._sql.insert, values, create=True)[1]
            except KeyTaken:
                created = call.execute(self._sql.replace, values)[1]
        if not created:
            raise KeyTaken
        if now - self._last_sweep >= SWEEP_EVERY:
            self._last_sweep = now
            if self._reserve is not None:
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
        self._keep_room()
        with self._call() as call:
            self._change(call, key, delta, ttl, expect, seal)

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        values = {"old": bytes.fromhex(key), "sealed": seal, **renewal(self._clock(), ttl)}
        with self._call() as call:
            if not call.execute(self._sql.touch[seal is not None], values)[1]:
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
        moved: dict[str, Any] = {
            "new": bytes.fromhex(new),
            "new_seal": seal,
            "whose": owner,
            "began": None if owner is None else now,
        }
        if trail is not None:
            ticket, over = trail.ticket, min(now + trail.ttl, FAR)
            moved |= {"ticket": ticket, "ticket_size": len(ticket)}
            moved |= {"over": over, "over_minute": sweep_minute(over)}
        self._keep_room()
        with self._call() as call:
            becomes = MOVES if trail is None else LEAVES_TRAIL
            self._change(call, old, delta, ttl, becomes=becomes, moved=moved)

    def destroy(self, key: str, expired: bool = False) -> Moved | None:
        return self._ending(partial(self._destroy, key, expired))

    def _destroy(self, key: str, expired: bool) -> Moved | None:
        values = {"old": bytes.fromhex(key), "now": self._clock()}
        statement = self._sql.destroy_expired if expired else self._sql.destroy
        with self._call() as call:
            if call.execute(statement, values, again=True)[1] or expired:
                return None
            # Not in the same statement: a rotation that it waited for has left its trail since.
            rows, _ = call.execute(self._sql.find_trail, values, again=True)
            if not rows:
                return None
            call.execute(self._sql.remove_trail, values, again=True)
            return Moved(bytes(rows[0][0]))

    def close(self) -> None:
        """Close the connections. Those of an application's own engine are its own to close."""
        if self._ours:
            with self._process.here().closing:
                pool = self._engine.pool
                self._engine.dispose()
                pool.dispose()  # what came back while the pools were changed

    # -- optional powers ------------------------------------------------------------------------

    def purge(self, limit: int) -> int:
        try:
            return self._purge(limit)
        except Full:
            removed, last = 0, PURGE_FEW
            while last == PURGE_FEW and removed < limit:
                last = self._ending(partial(self._purge, min(PURGE_FEW, limit - removed)))
                removed += last
            return removed

    def _purge(self, limit: int) -> int:
        now = self._clock()
        values = {"now": now, "minute": sweep_minute(now), "limit": limit, "look": limit + LOOK}
        with self._call() as call:
            if self._sql.direct:
                return call.execute(self._sql.purge, values)[1]
            expired, _ = call.execute(self._sql.expired, values)
            keys = [key for (key,) in expired]
            return call.execute(self._sql.purge_keys, {"keys": keys, "now": now})[1] if keys else 0

    def expired(self) -> int:
        now = self._clock()
        values = {"now": now, "minute": sweep_minute(now), "look": LOOK}
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

    def owned(self, owner: bytes) -> list[str]:
        values = {"whose": owner, "now": self._clock()}
        with self._call() as call:
            rows, _ = call.execute(self._sql.owned, values, again=True)
        # SQLite keeps values of any type in any column: one of another is no key.
        return [key.hex() for (key,) in rows if isinstance(key, (bytes, memoryview))]

    def end_owned(self, owner: bytes, but: str | None = None) -> int:
        return self._ending(partial(self._end_owned, owner, but))

    def _end_owned(self, owner: bytes, but: str | None) -> int:
        kept = None if but is None else bytes.fromhex(but)
        values = {"whose": owner, "now": self._clock(), "kept": kept}
        statement = self._sql.end_owned if kept is None else self._sql.end_others
        ended = 0
        with self._call() as call:
            for _ in call.tries():
                ended += call.execute(statement, values)[1]
                if self._sql.direct:
                    return ended
                # Elsewhere a row that moves may slip through: to where the statement has been.
                rows, _ = call.execute(self._sql.owned, values, again=True)
                if all(key == kept for (key,) in rows):
                    return ended
        raise StoreTimeout(BUSY)

    def _ending(self, end: Callable[[], T]) -> T:
        """Do what ends sessions: on a full disk, with the room kept back for it."""
        if self._reserve is None:
            return end()
        return self._reserve.let_through(end, Full, self._shorten)

    def _shorten(self) -> None:
        with self._call() as call:
            call.execute(self._sql.shorten, {})

    def _keep_room(self) -> None:
        """Let nothing be stored in the room that was given up for what ends."""
        if self._reserve is not None and not self._reserve.is_whole():
            raise Full("the database store failed: the disk is full")

    # -- changes --------------------------------------------------------------------------------

    def _change(
        self,
        call: Call,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None = None,
        seal: bytes | None = None,
        becomes: int = STAYS,
        moved: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Apply *delta*, and renew the record; *becomes* says what its key does, *moved* where it
        goes."""
        now = self._clock()
        values = {"old": bytes.fromhex(key), "sealed": seal, **renewal(now, ttl), **moved}
        sealed = seal is not None
        then = self._sql.leave_trail if becomes == LEAVES_TRAIL else None
        append = self._sql.direct and not delta.cleared
        # A clear needs no look at what is there: it is a new journal. Nor does what is appended.
        data = entry(delta.set, delta.deleted if append else ())
        blind = append or delta.cleared
        for _ in call.tries():
            if blind:
                statement = self._sql.change[append, becomes, expect is not None, sealed]
                new = {"delta": data, "n": len(data), "expect": expect}
                if call.execute(statement, {**values, **new}, then=then)[1]:
                    return
            # It is gone, or has another version, or its journal is full: look.
            record = self._look(call, values["old"], now)
            if record is Missing.CORRUPTED:
                raise StoreError("the database store: the record is corrupted, left as it is")
            if not isinstance(record, Record) or seal not in (None, record.seal):
                raise SessionGone("the session has ended")
            if expect not in (None, record.version):
                raise VersionChanged
            if not delta.cleared:
                whole = entry(merge(record.fields, delta))
                new = {"delta": whole, "n": len(whole), "expect": record.version}
                statement = self._sql.change[False, becomes, True, sealed]
                if call.execute(statement, {**values, **new}, then=then)[1]:
                    return
        raise StoreTimeout(BUSY)

    def _replace(self, call: Call, values: dict[str, Any], seen: Record | Missing) -> None:
        if isinstance(seen, Record):
            statement = self._sql.instead_of_record
            there = {"expect": seen.version, "sealed": seen.seal}
        else:
            rows, _ = call.execute(self._sql.load, {"old": values["new"]})
            if not rows or record_of(rows[0], values["now"]) is not seen:
                raise VersionChanged
            statement = self._sql.instead_of_row
            *_, version, _, format = rows[0]
            there = {"expect": version, "format_there": format}
        if not call.execute(statement, {**values, **there})[1]:
            raise VersionChanged

    def _look(
        self, call: Call, key: bytes, now: float, again: bool = False
    ) -> Record | Missing | Moved:
        rows, _ = call.execute(self._sql.load, {"old": key}, again=again)
        return record_of(rows[0], now) if rows else Missing.UNKNOWN

    def _call(self) -> Call:
        gate = self._process.here().gate
        return Call(self._engine, self._sql, self._create_table, gate, self._deadline)

    # -- forks ----------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        # SQLite keeps count of a process's locks in memory; a child that inherits the count, but
        # not the locks, may wait for one for ever, or read what nobody protects.
        gate = self._process.here().gate
        if gate is not None:
            gate.shut(time.monotonic() + self._deadline)
            self._engine.dispose()

    def _after_fork(self) -> None:
        gate = self._process.here().gate
        if gate is not None:
            gate.open()


class _Process:
    """What the store has in one process, of which *opener* is the first."""

    def __init__(self, engine: Engine, gated: bool, opener: int) -> None:
        self.closing = threading.Lock()
        self.gate = Gate() if gated else None
        if os.getpid() != opener:
            # Not even collected: some drivers say goodbye then, on the parent's socket.
            _inherited.append(engine.pool)
            engine.dispose(close=False)
