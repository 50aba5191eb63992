"""Room on the disk that is kept back, so that sessions can be ended when the disk is full.

To remove a record SQLite has to write first: the `-wal` grows, and what is in it goes into the main
file only where that may grow too. On a full disk nothing can be ended then, and nothing purged. So
a file with nothing in it holds some room. It is given up for what ends sessions, and for nothing
else, and taken again as soon as that is possible.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Final, TypeVar

from nocookie.errors import StoreError
from nocookie.stores.retry import tries

__all__ = ["Reserve"]

#: In bytes: what SQLite lets the `-wal` grow to before it goes into the main file, and a record as
#: large as `max_size` lets it be.
SIZE: Final = 6 * 2**20
#: The part of a file system that it may be at most.
SHARE: Final = 4
#: In bytes: by how much less to try where there is no room for all.
STEP: Final = 2**18
#: How often to give the room up for one end, and how many seconds to go on with that.
TRIES: Final = 10
PATIENCE: Final = 0.5

T = TypeVar("T")


class Reserve:
    """Room beside the database at *path*."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}-reserve"

    def fill(self) -> None:
        """Keep back as much as there is room for, up to SIZE. Raises nothing."""
        with suppress(OSError):
            is_new = not os.path.lexists(self._path)
            flags = os.O_CREAT | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
            file = os.open(self._path, flags, 0o600)
            try:
                kept = os.fstat(file).st_size
                size = _most(file)
                # At once: what is free for a moment in between is somebody else's.
                while size > kept and not _allocate(file, kept, size):
                    size -= STEP
                if is_new and size <= kept:
                    os.unlink(self._path)
            finally:
                os.close(file)

    def let_through(
        self, end: Callable[[], T], full: type[StoreError], shorten: Callable[[], object]
    ) -> T:
        """Return what *end* returns: where it raises *full*, with the room given up for it.

        What it has written then goes into the main file by *shorten*, and the room is taken again.
        """
        try:
            return end()
        except full:
            if not os.path.lexists(self._path):
                raise
        try:
            # Again: who stores something meanwhile may have the room, or have taken it again.
            for _ in islice(tries(time.monotonic() + PATIENCE), TRIES):
                self.give_up()
                with suppress(full):
                    return end()
            return end()
        finally:
            with suppress(StoreError):
                shorten()
            self.fill()

    def give_up(self) -> bool:
        """Give the room back to the disk; return whether there was some."""
        with suppress(OSError):
            if os.stat(self._path, follow_symlinks=False).st_size:
                os.truncate(self._path, 0)
                return True
        return False

    def is_whole(self) -> bool:
        """Whether it need not be taken again before anything else is stored; takes it again where
        that is possible."""
        try:
            if os.stat(self._path).st_size:
                return True
            self.fill()
            return os.stat(self._path).st_size > 0
        except OSError:
            return True  # it was never made, or cannot be


def _most(file: int) -> int:
    if not hasattr(os, "fstatvfs"):
        return SIZE
    system = os.fstatvfs(file)
    return min(SIZE, system.f_blocks * system.f_frsize // SHARE)


def _allocate(file: int, kept: int, size: int) -> bool:
    """Whether the file is as large as this now, with all its room on the disk."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, kept, size - kept)
        else:
            # Not zeros: some file systems keep no room for them.
            os.lseek(file, kept, os.SEEK_SET)
            with open(file, "wb", closefd=False) as out:
                out.write(os.urandom(size - kept))
    except OSError:
        os.truncate(file, kept)  # some keep what they had by then
        return False
    return True
