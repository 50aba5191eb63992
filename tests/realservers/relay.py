"""Faults on the wire: a TCP relay between a client and a real server.

    with Relay("127.0.0.1", server.port) as relay:
        store = Store(url=f"redis://127.0.0.1:{relay.port}")
        relay.drop_reply()  # the next request takes effect, and nobody hears of it

A *request* is what a client sends between two answers: so `requests` counts round trips, also
where a request comes in many pieces, or many commands come as one request.
"""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress
from typing import NamedTuple, Self

#: Bytes that are passed on in one piece.
PIECE = 65536

#: Seconds that closing waits for the threads.
PATIENCE = 10.0


class Relay:
    """Listens on `port` of this host, and passes on to the target what comes.

    Each request waits `delay` seconds, give or take up to `jitter`, before it is passed on. Both
    may be changed at any time.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self.delay = 0.0
        self.jitter = 0.0
        #: Where requests go. A connection that is open stays where it is.
        self.target = (target_host, target_port)
        #: What was seen so far. May be set back to 0.
        self.connections = 0
        self.requests = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self._drops: list[_Drop] = []
        self._dropped = threading.Event()
        self._closing = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._open: set[_Link] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def drop_reply(self, nth: int = 1, holding: bytes = b"") -> None:
        """Let the *nth* request from now on, of those that hold these bytes, take effect; when
        the server has answered, close the connection without the answer."""
        self._drop(nth, holding, after=True)

    def drop_request(self, nth: int = 1, holding: bytes = b"") -> None:
        """Close the connection on which the *nth* such request comes, and do not pass it on."""
        self._drop(nth, holding, after=False)

    def forget_drops(self) -> None:
        """Drop nothing that was asked for and has not come."""
        with self._lock:
            self._drops.clear()

    def wait_for_drop(self, seconds: float = PATIENCE) -> bool:
        """Wait until the last drop that was asked for happened; return whether it did."""
        return self._dropped.wait(seconds)

    def freeze(self) -> None:
        """Pass on nothing, in either direction; connections are still taken."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Close every connection that is open. New ones are taken as before."""
        with self._lock:
            links = list(self._open)
        for link in links:
            link.cut()

    def close(self) -> None:
        self._closing.set()
        self._flowing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _drop(self, nth: int, holding: bytes, after: bool) -> None:
        self._dropped.clear()
        with self._lock:
            self._drops.append(_Drop(nth, holding, after))

    def _start(self, function, *arguments) -> None:  # type: ignore[no-untyped-def]
        thread = threading.Thread(target=function, args=arguments, daemon=True, name="relay")
        with self._lock:
            self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
            thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(self.target, PATIENCE)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            with self._lock:
                self._open.add(link)
            if self._closing.is_set():
                link.cut()
            self._start(self._pass, link, link.client, link.server, self._on_sent)
            self._start(self._pass, link, link.server, link.client, self._on_received)

    def _pass(self, link, source, target, on_piece) -> None:  # type: ignore[no-untyped-def]
        with suppress(OSError):
            while piece := source.recv(PIECE):
                self._flowing.wait()
                if not on_piece(link, piece):
                    break
                target.sendall(piece)
        # Whoever closes first ends both ways: none of our servers talks on to a closed client.
        link.cut()
        with self._lock:
            self._open.discard(link)
            link.passing -= 1
            last = not link.passing
        if last:
            source.close()
            target.close()

    def _on_sent(self, link: _Link, piece: bytes) -> bool:
        with self._lock:
            self.bytes_sent += len(piece)
            if first := not link.asked:
                link.asked = True
                self.requests += 1
            drop = self._drop_for(piece, first)
        if drop is not None:
            if not drop.after:
                self._dropped.set()
                return False
            link.silent = True
        if first and (self.delay or self.jitter):
            pause = self.delay + random.uniform(-self.jitter, self.jitter)
            self._closing.wait(max(0.0, pause))
        return True

    def _on_received(self, link: _Link, piece: bytes) -> bool:
        with self._lock:
            self.bytes_received += len(piece)
            link.asked = False
        if link.silent:
            self._dropped.set()
            return False
        return True

    def _drop_for(self, piece: bytes, first: bool) -> _Drop | None:
        for place, drop in enumerate(self._drops):
            if drop.holding in piece if drop.holding else first:
                if drop.nth == 1:
                    return self._drops.pop(place)
                self._drops[place] = drop._replace(nth=drop.nth - 1)
        return None


class _Drop(NamedTuple):
    nth: int
    holding: bytes
    after: bool


class _Link:
    """A client's connection, and the one that it is passed on to."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        #: Whether the last that was passed on was a piece of a request.
        self.asked = False
        #: Whether the next answer is dropped.
        self.silent = False
        self.passing = 2

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
