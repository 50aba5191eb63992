"""A bounded number of connections, each lent to one thread at a time.

They lie in a deque, the one used last on top, above places where one may be opened. Its `append`
and `pop` are atomic, and all that a call costs while there is something to take; the condition is
only for those who find it empty.

A pool is of one process: a store has a `ProcessLocal` of it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, Protocol, TypeVar

__all__ = ["Places", "Pool"]


class _Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)
#: None is a place where a connection may be opened.
Places = deque[T | None]


class Pool(Generic[T]):
    def __init__(self, size: int) -> None:
        self._size = size
        self._places = self._empty()
        self._waiting = 0
        self._returned = threading.Condition()

    def take(self, until: float) -> tuple[Places[T], T | None]:
        """Take the connection used last, or None where one may be opened; and where to give it
        back. Raises TimeoutError if there is neither by *until*, a time of `time.monotonic`."""
        places = self._places
        try:
            return places, places.pop()
        except IndexError:
            return self._wait(until)

    def give_back(self, places: Places[T], connection: T | None) -> None:
        """Give back what `take` lent: None, where a connection was closed, or not opened."""
        if connection is None:
            places.appendleft(None)
        else:
            places.append(connection)
        if places is not self._places:  # the pool was closed meanwhile
            places.extend([None] * self._drain(places))
            with self._returned:
                self._returned.notify_all()
        elif self._waiting:
            with self._returned:
                self._returned.notify()

    def close(self) -> None:
        """Close every connection, those in use as they come back. More may be opened then."""
        places, self._places = self._places, self._empty()
        with self._returned:
            self._returned.notify_all()
        self._drain(places)

    def shut(self, until: float) -> None:
        """Close every connection, and lend none before `open`. Wait for those in use, but not
        longer than *until*."""
        places, self._places = self._places, deque()
        with self._returned:
            free = self._drain(places)
            while free < self._size and (left := until - time.monotonic()) > 0:
                self._returned.wait(left)
                free += self._drain(places)

    def open(self) -> None:
        """Lend again, after `shut`."""
        self._places = self._empty()
        with self._returned:
            self._returned.notify_all()

    def _empty(self) -> Places[T]:
        return deque([None] * self._size)

    def _drain(self, places: Places[T]) -> int:
        """Close the connections that are not in use; return how many places are free."""
        free = 0
        while True:
            try:
                # One by one: whoever takes one at the same time has it alone.
                connection = places.pop()
            except IndexError:
                return free
            if connection is not None:
                connection.close()
            free += 1

    def _wait(self, until: float) -> tuple[Places[T], T | None]:
        with self._returned:
            self._waiting += 1
            try:
                while True:
                    # Only now: what came back before we counted as waiting is found here, and
                    # what comes back later notifies.
                    places = self._places
                    try:
                        return places, places.pop()
                    except IndexError:
                        pass
                    left = until - time.monotonic()
                    if left <= 0 or not self._returned.wait(left):
                        raise TimeoutError
            except BaseException:
                # Who is broken off here, as gevent does it, may have been told of a place.
                self._returned.notify()
                raise
            finally:
                self._waiting -= 1
