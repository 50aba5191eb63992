"""What a fork must not tear: every store hears of it before and after.

A child has the memory of its parent, but of its threads only the one that forked: a lock that
another held is held for ever, and a connection is now of two processes.
"""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["ForkAware"]


class ForkAware:
    """Hears of every fork from `_hear_of_forks` on, as long as it lives."""

    def _hear_of_forks(self) -> None:
        with _forking:
            _living.add(self)

    def _before_fork(self) -> None:
        """In the parent: let nothing be under way that a child cannot inherit."""

    def _after_fork_in_parent(self) -> None:
        """Go on, after `_before_fork`."""

    def _after_fork_in_child(self) -> None:
        """Begin anew, with nothing that other threads had in hand."""


_living: weakref.WeakSet[ForkAware] = weakref.WeakSet()

#: One fork at a time: a second one would undo what the first has prepared.
_forking = threading.RLock()
#: Those who live during a fork.
_told: list[ForkAware] = []


def _before_fork() -> None:
    _forking.acquire()
    _told[:] = _living
    for one in _told:
        one._before_fork()


def _after_fork_in_parent() -> None:
    while _told:
        _told.pop()._after_fork_in_parent()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.RLock()
    while _told:
        _told.pop()._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
