"""What drivers say, and what it means."""

from __future__ import annotations

from typing import Any, Final

from nocookie.errors import StoreError, StoreTimeout

__all__ = ["Broken", "Busy", "Full", "NoTable", "failure_of"]

#: SQLSTATEs, and what they stand for, where it is not just an error.
RETRY: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock: undone by itself
TOO_LONG: Final = frozenset({"57014", "55P03"})  # statement_timeout, lock_timeout
NO_TABLE: Final = "42P01"
NO_COLUMN: Final = "42703"
#: The same as error numbers of MySQL and MariaDB.
MYSQL_RETRY: Final = frozenset({1205, 1213})
MYSQL_TOO_LONG: Final = frozenset({1969, 3024})
MYSQL_NO_TABLE: Final = 1146
MYSQL_NO_COLUMN: Final = 1054
#: What SQLite says about it, in the middle of a sentence.
SQLITE_NO_COLUMN: Final = ("no such column", "has no column named")
#: What SQLite says where there is no room: for data, and for the locks that lie beside them.
SQLITE_FULL: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})


class NoTable(StoreError):
    """The table is missing."""


class Broken(StoreError):
    """The connection is."""


class Full(StoreError):
    """There is no room on the disk of an SQLite database."""


class Busy(StoreTimeout):
    """Others were quicker, and nothing was done."""


def failure_of(error: Any, late: bool, connected: bool = True) -> StoreError:
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
        return Busy("the database store: another process held the file too long")
    if state in RETRY or number in MYSQL_RETRY:
        return Busy("the database store: others kept it busy")
    if state == NO_TABLE or number == MYSQL_NO_TABLE or str(number).startswith("no such table"):
        return NoTable(
            "the database store: there is no such table: set create_table = true, or run the "
            "migration"
        )
    if (
        state == NO_COLUMN
        or number == MYSQL_NO_COLUMN
        or any(says in str(number) for says in SQLITE_NO_COLUMN)
    ):
        return StoreError(
            "the database store: the table is of an earlier version and lacks a column: run the "
            "migration in docs/stores/sqlalchemy.md"
        )
    what = " ".join(filter(None, (type(driver).__name__, name or state)))
    if name in SQLITE_FULL:
        return Full(f"the database store failed: {what}")
    if not connected:
        return StoreError(f"the database store: it cannot be reached: {what}")
    if error.connection_invalidated:
        return Broken(f"the database store: the connection broke: {what}")
    return StoreError(f"the database store failed: {what}")
