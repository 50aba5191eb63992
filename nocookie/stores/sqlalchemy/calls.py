"""Calls of the store: a connection each, and a deadline that holds."""

from __future__ import annotations

import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from nocookie.errors import StoreError, StoreTimeout
from nocookie.forks import ProcessLocal
from nocookie.stores.base import KeyTaken
from nocookie.stores.retry import tries
from nocookie.stores.sqlalchemy.failures import Broken, Busy, NoTable, failure_of
from nocookie.stores.sqlalchemy.watchdog import Watchdog

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import Connection

    from nocookie.stores.sqlalchemy.statements import Statements

__all__ = ["BUSY", "Call", "Gate", "current_call"]

#: How long at most to wait before the next try, where others were quicker: in seconds.
PAUSE: Final = 0.005
#: What is said of it if they were so to the end.
BUSY: Final = "the database store: others kept it busy"

#: Its thread does not live on in a child.
_watchdog: Final = ProcessLocal(Watchdog)
_here = threading.local()


def current_call() -> Call | None:
    """The call that this thread is in."""
    call: Call | None = getattr(_here, "call", None)
    return call


class Call:
    """One call of the store: at most one connection, and a moment by which all is over."""

    def __init__(
        self,
        engine: Engine,
        sql: Statements,
        create_table: bool,
        gate: Gate | None,
        deadline: float,
    ) -> None:
        self._engine = engine
        self._sql = sql
        self._create_table = create_table
        self._gate = gate
        self.until = time.monotonic() + deadline
        #: Set by the watchdog.
        self.late = False
        self._lock = threading.Lock()
        self._socket: int | None = None
        self._connection: Connection | None = None
        self._pool: Any = None
        self._astray = False
        self._fresh = False
        self._outer: Call | None = None
        #: What is to be done when the connection is given back.
        self.afterwards: Callable[[], None] | None = None

    def __enter__(self) -> Call:
        if self._gate is not None:
            self._gate.enter(self.until)
        self._outer = current_call()
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
        if self.afterwards is not None:
            self.afterwards()

    def execute(
        self,
        statement: Any,
        values: Mapping[str, Any],
        *,
        again: bool = False,
        create: bool = False,
        then: Any = None,
    ) -> tuple[list[Any], int]:
        """Run one statement; return its rows, and how many it changed. If it changed any, run
        *then* with it, or neither.

        Where there is no table yet, and *create* does not ask for one, it holds no rows. With
        *again*, the statement may run twice: once more if the connection broke.
        """
        for _ in self.tries():
            outcome = self._try(statement, values, then)
            if isinstance(outcome, tuple):
                return outcome
            if isinstance(outcome, NoTable) and self._create_table:
                if not create:
                    return [], 0
                self._make_table()
            elif isinstance(outcome, Broken) and again:
                again = False
            elif not isinstance(outcome, Busy):
                raise outcome
        raise StoreTimeout(BUSY)

    def tries(self) -> Iterator[None]:
        """Yield for each try that there is time for."""
        for _ in tries(self.until, PAUSE):
            if self.late:
                return
            yield

    def _is_over(self) -> bool:
        return self.late or time.monotonic() >= self.until

    def _try(
        self, statement: Any, values: Mapping[str, Any], then: Any
    ) -> tuple[list[Any], int] | Exception:
        """Return the outcome, or what went wrong: raised where no driver's exception is being
        handled, ours keeps none of its data."""
        from sqlalchemy.exc import DBAPIError, IntegrityError
        from sqlalchemy.exc import TimeoutError as PoolTimeout

        try:
            if then is not None:
                return [], self._run_both(statement, then, values)
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
            failure = failure_of(error, self._is_over(), connected)
            if isinstance(failure, Broken) or then is not None:
                self._release()
            return failure
        except Exception as error:  # what drivers say to a URL that they cannot read, for one
            return StoreError(f"the database store failed: {type(error).__name__}")

    def _run_both(self, statement: Any, then: Any, values: Mapping[str, Any]) -> int:
        """In one transaction, the only one that there is."""
        connection = self._connected()
        connection.rollback()  # what SQLAlchemy has begun, and the database knows nothing of
        connection.execution_options(isolation_level=connection.default_isolation_level)
        with connection.begin():
            changed: int = connection.execute(statement, values).rowcount
            if changed:
                connection.execute(then, values)
        self._release()  # to the pool, which sets it back to AUTOCOMMIT
        return changed

    def _make_table(self) -> None:
        """Make the table and its index. Other processes may be at the same: theirs will do."""
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.schema import CreateIndex, CreateTable

        try:
            connection = self._connected()
            if not self._sql.direct:
                self._sql.table.create(connection, checkfirst=True)
                return
            # Both or nothing: a process may be killed in between.
            immediate = " IMMEDIATE" if self._engine.dialect.name == "sqlite" else ""
            connection.exec_driver_sql(f"BEGIN{immediate}")
            connection.execute(CreateTable(self._sql.table, if_not_exists=True))
            for index in self._sql.table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
            connection.exec_driver_sql("COMMIT")
            return
        except DBAPIError as error:
            failure = failure_of(error, self._is_over())
        self._release()  # and with it, what was begun
        if not isinstance(failure, Busy) and self._has_table() is False:
            raise failure

    def _has_table(self) -> bool | None:
        """Return whether there is a table; None if that cannot be seen now, as while the store is
        closed by another thread."""
        from sqlalchemy import inspect
        from sqlalchemy.exc import SQLAlchemyError

        try:
            there = inspect(self._connected()).has_table
            return there(self._sql.table.name, schema=self._sql.table.schema)
        except SQLAlchemyError:
            return None

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
            _watchdog.here().watch(self)

    def _unwatch(self) -> None:
        if self._socket is not None:
            _watchdog.here().forget(self)
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


class Gate:
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
