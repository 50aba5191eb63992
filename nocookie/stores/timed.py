"""Sockets for calls that have a deadline: connecting, TLS, sending and receiving."""

from __future__ import annotations

import _socket
import math
import select
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Address", "TimedSocket", "connect", "encrypt"]

#: The path of a socket of this host, or a host and a port.
Address = str | tuple[str, int]

#: How much of a call's time its waits are given at first. So the next call, which begins with a
#: little more or less, need not set the timeout again: that is a system call for each wait.
SHARE: Final = 0.9

#: What keeps connections open through gateways that forget those which are silent, and notices
#: that the other host is gone: seconds of silence, seconds between probes, and how many of them.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


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


class _TimedTls(TimedSocket):
    """For what gevent makes of TLS. There one call waits for each piece of a record, with a
    timeout for each: so it must not wait, and we do."""

    __slots__ = ()

    def _wait(self, operation: Callable[[Any], Any], argument: Any) -> Any:
        self._socket.settimeout(0)
        while time.monotonic() < self.until:
            event = selectors.EVENT_WRITE
            try:
                done = operation(argument)
                if done != 0 or operation is not self._send:  # that is: not now
                    return done
            except ssl.SSLWantReadError:
                event = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                pass
            _wait_for(self._socket, event, self.until)
        raise TimeoutError


def connect(address: Address, until: float, keepalive: bool = False) -> socket.socket:
    """Connect to the first that answers of the addresses that a name has. One that is silent
    leaves time for those behind it.

    Raises OSError, TimeoutError among them, and UnicodeError for a name that cannot be one.
    """
    targets: list[tuple[int, Any]]
    if isinstance(address, str):
        targets = [(socket.AF_UNIX, address)]
    else:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        targets = [(family, target) for family, _, _, _, target in found]
    while True:
        family, target = targets.pop(0)
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            return _connected(family, target, left / (1 + len(targets)), keepalive)
        except OSError:
            if not targets:
                raise


def _connected(family: int, target: Any, timeout: float, keepalive: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(target)
        if isinstance(target, tuple):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if keepalive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in KEEPALIVE.items():
                    if hasattr(socket, name):  # not everywhere
                        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except BaseException:
        sock.close()
        raise
    return sock


def encrypt(sock: socket.socket, context: ssl.SSLContext, name: str, until: float) -> TimedSocket:
    """Begin TLS with the server called *name*. Raises OSError, and *sock* is closed then."""
    try:
        sock.settimeout(0)
        tls = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
    except BaseException:
        sock.close()
        raise
    try:
        while True:
            try:
                tls.do_handshake()
                own = isinstance(tls, _socket.socket)
                return TimedSocket(tls, until) if own else _TimedTls(tls, until)
            except ssl.SSLWantReadError:
                _wait_for(tls, selectors.EVENT_READ, until)
            except ssl.SSLWantWriteError:
                _wait_for(tls, selectors.EVENT_WRITE, until)
    except BaseException:
        tls.close()
        raise


def _wait_for(sock: Any, event: int, until: float) -> None:
    left = until - time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(sock, event)
        if left <= 0 or not selector.select(left):
            raise TimeoutError
