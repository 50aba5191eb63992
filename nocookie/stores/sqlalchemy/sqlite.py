"""The file of an SQLite database that we have by its URL: as the file store has its own."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from nocookie.stores.reserve import Reserve
from nocookie.stores.sqlalchemy.calls import current_call
from nocookie.stores.sqlite_file import Replacements, identity, make, sides

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["file_of", "reserve_for", "watch"]

#: Where a connection of the pool keeps what it is open on.
FILE = "nocookie file"
SIDES = "nocookie sides"


def file_of(engine: Engine) -> str | None:
    """Return where the file of an SQLite *engine* is; None for what SQLite reads as a URI."""
    name = engine.url.database
    if not name or name.startswith("file:"):
        return None
    return os.path.realpath(name)  # a link is for who wrote the URL to make


def reserve_for(engine: Engine) -> Reserve | None:
    path = file_of(engine) if engine.dialect.name == "sqlite" else None
    return Reserve(path) if path else None


def watch(engine: Engine, path: str, deadline: float) -> None:
    """Have the file made for its owner alone, and its connections given up where it was replaced.

    *deadline* is in seconds, for where no call has one.
    """
    from sqlalchemy import event
    from sqlalchemy.exc import DisconnectionError

    replacements = Replacements()

    def until() -> float:
        call = current_call()
        return time.monotonic() + deadline if call is None else call.until

    def before_connect(dialect: Any, record: Any, arguments: Any, keywords: Any) -> None:
        with suppress(OSError):  # what stands in the way is SQLite's to say
            make(path, until())
        record.info[FILE] = identity(path)

    def after_connect(connection: Any, record: Any) -> None:
        connection.execute("SELECT 1 FROM sqlite_master")  # only now there is a file beside it
        record.info[SIDES] = sides(path)

    def before_use(connection: Any, record: Any, proxy: Any) -> None:
        old = record.info.get(FILE)
        if old != identity(path):
            if old is not None:
                replacements.clear(path, record.info[SIDES], until())
                call = current_call()
                # Not from here: the pool has its own way with what is raised.
                if call is not None:
                    call.afterwards = partial(replacements.tell, old)
            raise DisconnectionError

    event.listen(engine, "do_connect", before_connect)
    event.listen(engine, "connect", after_connect)
    event.listen(engine, "checkout", before_use)
