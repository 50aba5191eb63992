"""Engines: ours, made of a URL, and those of an application."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any, Final

from nocookie.errors import ConfigError
from nocookie.stores.sqlalchemy.calls import current_call
from nocookie.stores.sqlalchemy.sqlite import file_of, watch

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL, Dialect, ExceptionContext

__all__ = ["check_engine", "driver_settings", "make_engine"]

#: The part of the deadline that a statement may take before PostgreSQL ends it. It comes before
#: the watchdog: a server that answers keeps its connection.
SERVER_SHARE: Final = 0.9

#: The engines that have our listeners. `event.contains` does not know: it goes by an address in
#: memory, and says yes of an engine that has the address of one that is gone.
_watched: weakref.WeakSet[Engine] = weakref.WeakSet()


def make_engine(url: str, deadline: float) -> Engine:
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
            connect_args=driver_settings(where, deadline),
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
        path = file_of(engine)
        if path is not None:
            watch(engine, path, deadline)
    return engine


def driver_settings(url: URL, deadline: float) -> dict[str, Any]:
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


def check_engine(engine: Engine) -> None:
    from sqlalchemy import event

    if engine.dialect.is_async:
        raise ConfigError("type = 'sqlalchemy' needs a synchronous driver")
    _refuse_memory(engine.url)
    if engine.dialect.name == "sqlite":
        return  # there is no server that could freeze
    if engine not in _watched:
        event.listen(engine, "do_connect", _on_connect)
        event.listen(engine, "handle_error", _on_error)
        _watched.add(engine)


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
    call = current_call()
    return call and call.connect(lambda: dialect.connect(*arguments, **keywords))


def _on_error(context: ExceptionContext) -> None:
    # One statement was late: that is no reason to close every connection of the pool.
    call = current_call()
    if call is not None and call.late:
        context.invalidate_pool_on_disconnect = False
