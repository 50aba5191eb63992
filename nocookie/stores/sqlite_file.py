"""The file of an SQLite database: how it is made, and whether it is still the same one.

SQLite has beside it a `-wal`, with what was saved last, and a `-shm`, with the locks. They belong
to one file: beside another, SQLite takes pages of the one for pages of the other. So whoever makes
a file, or finds that it was replaced, takes away what belonged to the one before.

No file of SQLite's is opened here. Closing it again would drop every lock that the process has on
it (POSIX), those of SQLite too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from nocookie.events import tell
from nocookie.forks import ProcessLocal
from nocookie.stores.retry import tries

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed or replaced
    fcntl = None  # type: ignore[assignment]

__all__ = ["SIDES", "Identity", "Replacements", "identity", "make", "sides"]

#: A device, and the number of a file on it.
Identity = tuple[int, int]

#: What SQLite adds to the name of the file.
SIDES: Final = ("-wal", "-shm")


def identity(path: str) -> Identity | None:
    """Return which file is at *path*; None if there is none. Raises OSError."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def sides(path: str) -> frozenset[Identity]:
    """Return which files are beside the one at *path*."""
    found = (identity(path + side) for side in SIDES)
    return frozenset(one for one in found if one is not None)


def make(path: str, until: float) -> None:
    """Make an empty file that only its owner can read, if there is none; SQLite gives the files
    beside it the same mode. Raises OSError."""
    with _one_by_one(path, until):
        if os.path.lexists(path):
            return
        for side in SIDES:
            with suppress(FileNotFoundError):
                os.unlink(path + side)
        # Under another name: from the moment that it has its own, SQLite may have it open.
        new = f"{path}-new"
        with suppress(FileNotFoundError):
            os.unlink(new)
        nofollow = getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | nofollow, 0o600))
        os.rename(new, path)


class Replacements:
    """What a store does about a file that was replaced or removed while it had it open."""

    def __init__(self) -> None:
        self._last: Identity | None = None
        self._lock = ProcessLocal(threading.Lock)

    def tell(self, old: Identity) -> None:
        """Say so, once for each *old* file. Raises what a callback says to the client."""
        with self._lock.here():
            is_first, self._last = self._last != old, old
        if is_first:
            tell("replaced", "the file of the sessions was replaced or removed, and is opened anew")

    def clear(self, path: str, beside: frozenset[Identity], until: float) -> None:
        """Remove what is *beside* the file at *path* but of the old one: as long as that is open,
        no other file has its number. Raises OSError."""
        if identity(path) is None:
            return  # whoever makes the next one removes them
        with _one_by_one(path, until):
            for side in SIDES:
                if identity(path + side) in beside:
                    os.unlink(path + side)


@contextmanager
def _one_by_one(path: str, until: float) -> Iterator[None]:
    """Keep other processes and threads from doing the same in the folder of *path*."""
    if fcntl is None:
        yield
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in tries(until):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            except OSError:  # a file system without locks for folders
                break
        else:
            raise TimeoutError("others are at the same")
        yield
    finally:
        os.close(folder)
