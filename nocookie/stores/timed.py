"""A socket for calls that have a deadline."""

from __future__ import annotations

import _socket
import math
import select
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["TimedSocket"]

#: How much of a call's time its waits are given at first. So the next call, which begins with a
#: little more or less, need not set the timeout again: that is a system call for each wait.
SHARE: Final = 0.9


class TimedSocket:
    """A connected socket on which every wait ends at `until`, a time of `time.monotonic`; a
    timeout alone begins anew with each."""

    __slots__ = ("_poll", "_recv", "_send", "_socket", "_timeout", "until")

    def __init__(self, sock: Any, until: float) -> None:
        self.until = until
        self._socket = sock
        self._send: Callable[[Any], int] = sock.send
        self._recv: Callable[[int], bytes] = sock.recv
        #: That of the socket; infinite if it has to be set.
        self._timeout = math.inf
        self._poll: Any = None
        # What gevent and eventlet make of sockets does not wait in `poll`, and under TLS there is
        # more to read than what was said.
        plain = isinstance(sock, _socket.socket) and not isinstance(sock, ssl.SSLSocket)
        if plain and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock, select.POLLIN)

    def sendall(self, data: bytes) -> None:
        sent: int = self._wait(self._send, data)
        while sent < len(data):
            sent += self._wait(self._send, memoryview(data)[sent:])

    def recv(self, size: int) -> bytes:
        data: bytes = self._wait(self._recv, size)
        return data

    def recv_into(self, buffer: bytearray) -> int:
        size: int = self._wait(self._socket.recv_into, buffer)
        return size

    def is_quiet(self) -> bool:
        """Whether the other end is there, and has said nothing that nobody asked for. If not, the
        socket is of no more use."""
        if self._poll is not None:
            return not self._poll.poll(0)
        self._timeout = math.inf
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def settimeout(self, timeout: float | None) -> None:
        """Of no effect, for drivers that set one: the call's deadline counts."""

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()

    def _wait(self, operation: Callable[[Any], Any], argument: Any) -> Any:
        if self.until - time.monotonic() < self._timeout:
            self._limit(SHARE)
        try:
            return operation(argument)
        except TimeoutError:
            self._limit(1)
        return operation(argument)

    def _limit(self, share: float) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._timeout = left * share
        self._socket.settimeout(self._timeout)
