"""What belongs to one process, and is not its children's.

A child has the memory of its parent, but of its threads only the one that forked: a lock that
another held is held for ever, and a connection is now of two processes. Who reads from it may get
the answer to the other's question. So both are a `ProcessLocal`, and whoever takes one looks at
the process id. Python's hooks at a fork are not enough for that: uWSGI, or any C program with
Python in it, forks without them.

The hooks are for the one thing that comes too late in the child: see `ForkAware`.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

__all__ = ["ForkAware", "ProcessLocal"]

T = TypeVar("T")


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
            return self._values[os.getpid()]
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
