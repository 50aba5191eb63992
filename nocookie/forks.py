"""What belongs to one process, and is not its children's.

A child has the memory of its parent, but of its threads only the one that forked: a lock that
another held is held for ever, and a connection is now of two processes. Who reads from it may get
the answer to the other's question. So both are a `ProcessLocal`, and whoever takes one looks which
process this is. Python's hooks at a fork are not enough for that: uWSGI, or any C program with
Python in it, forks without them.

The hooks are for the one thing that comes too late in the child: see `ForkAware`.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

__all__ = ["ForkAware", "ProcessLocal"]

T = TypeVar("T")


#: Advice of madvise(2) for memory: that a child, whoever makes it, finds zeros there.
_WIPE_ON_FORK: Final = 18
_NO_ADVICE: Final = -1


def _wiped_by_forks() -> mmap.mmap | bytes:
    """Return a byte that is zero in a new process; where the kernel does not see to that, one that
    is zero for ever."""
    if sys.platform != "linux":
        return bytes(1)
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:  # an old kernel
        return bytes(1)
    try:
        page.madvise(_NO_ADVICE)
    except OSError:
        return page
    return bytes(1)  # who takes any advice, as an emulator may, follows none


#: To ask for the process id is a call of the system, and takes longer than all else that a store
#: in memory does to save. So it is kept in `_pid` as long as this byte is set.
_is_known: mmap.mmap | bytes = _wiped_by_forks()
_pid = 0


def _process() -> int:
    """Return the id of this process, and keep it where a child cannot take it for its own."""
    global _pid
    pid = os.getpid()
    if not isinstance(_is_known, bytes):
        _pid = pid
        _is_known[0] = 1
    return pid


class ProcessLocal(Generic[T]):
    """One value for each process, as `threading.local` has one for each thread.

    *make* is called once in a process, when it first asks. What a process inherits is neither used
    nor closed nor collected there: some drivers say goodbye then, on a socket of the parent's.
    """

    __slots__ = ("_make", "_values")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        #: By process id: at most the value of this process, or of the one it was forked from.
        self._values: dict[int, T] = {}

    def here(self) -> T:
        """Return the value of this process."""
        try:
            return self._values[_pid if _is_known[0] else _process()]
        except KeyError:
            return self._first()

    def _first(self) -> T:
        pid = os.getpid()
        with _making.setdefault(pid, threading.RLock()):
            if pid not in self._values:
                if self._values:
                    _inherited.append(self._values)
                self._values = {pid: self._make()}
            return self._values[pid]


#: By process id: held while a value is made.
_making: Final[dict[int, threading.RLock]] = {}
_inherited: Final[list[Any]] = []


class ForkAware:
    """Hears of the forks that Python makes, from `_hear_of_forks` on, as long as it lives.

    For what must not be open during a fork. Where there was no time for that, because Python did
    not make it, the child has to be right all the same.
    """

    def _hear_of_forks(self) -> None:
        with _forking.here():
            _living.add(self)

    def _before_fork(self) -> None:
        """Let nothing be under way that a child cannot inherit."""

    def _after_fork(self) -> None:
        """Go on, after `_before_fork`: in the parent. The child has values of its own."""


_living: Final[weakref.WeakSet[ForkAware]] = weakref.WeakSet()

#: One fork at a time: a second one would undo what the first has prepared.
_forking: Final = ProcessLocal(threading.RLock)
#: Those who live during a fork.
_told: Final[list[ForkAware]] = []


def _before_fork() -> None:
    _forking.here().acquire()
    _told[:] = _living
    for one in _told:
        one._before_fork()


def _after_fork_in_parent() -> None:
    while _told:
        _told.pop()._after_fork()
    _forking.here().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
