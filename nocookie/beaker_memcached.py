"""What Beaker stored in memcached, listed and read.

There is a session under its id and `_session`. memcached names what it holds to its crawler only,
by `lru_crawler metadump` (since 1.4.31). What lies there is a text, as Beaker's client of memcached
marks it in an item's flags: then nothing has to be unpickled.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote

from nocookie.beaker_bounds import Unreadable, inflated, too_large
from nocookie.errors import StoreError
from nocookie.stores.memcached_servers import addresses
from nocookie.stores.memcached_wire import store_error
from nocookie.stores.timed import Address, TimedSocket, connect

__all__ = ["BeakerMemcached"]

#: The flags of python-memcached, pylibmc and bmemcached that matter here.
PICKLED: Final = 1
COMPRESSED: Final = 8

#: How many bytes are received at once, at most.
PIECE: Final = 65536
#: What ends the name of a session.
ENDING: Final = "_session"


class BeakerMemcached:
    """The servers in *url*. What is pickled is opened by *opened*. No more than *most* bytes of a
    session are read. Every wait ends after *deadline* seconds. Raises `ConfigError`, `StoreError`
    and `Unreadable`."""

    #: What memcached moves between its queues meanwhile, a listing may leave out.
    lists_all = False

    def __init__(
        self, url: str, deadline: float, opened: Callable[[bytes], Any], most: int
    ) -> None:
        there = addresses(url)
        self.place = f"memcached {sorted(map(str, there))}"
        self._deadline = deadline
        self._opened = opened
        self._most = most
        self._servers = [_Server(address, deadline, most) for address in there]
        #: By id.
        self._at: dict[str, _Server] = {}

    def ids(self) -> list[str]:
        for server in self._servers * 2:  # what moved during one is mostly in the other
            for name in server.names():
                if name.endswith(ENDING):
                    self._at.setdefault(name.removesuffix(ENDING), server)
        return sorted(self._at)

    def read(self, id: str) -> Any:
        # Clients have ways of their own to choose a server, so one that is not listed is anywhere.
        for server in [self._at[id]] if id in self._at else self._servers:
            found = server.item(f"{id}{ENDING}")
            if found is not None:
                return self._kept(*found)
        return None

    def _kept(self, flags: int, data: bytes) -> Any:
        if flags & COMPRESSED:
            try:
                data = inflated(data, self._most)
            except (ValueError, zlib.error):
                raise Unreadable("what is compressed of it is cut short or broken") from None
        return self._opened(data) if flags & PICKLED else data.decode("utf-8", "replace")

    def close(self) -> None:
        for server in self._servers:
            server.close()


class _Server:
    def __init__(self, address: Address, deadline: float, most: int) -> None:
        self._address = address
        self._deadline = deadline
        self._most = most
        self._socket: TimedSocket | None = None
        self._buffer = b""

    def names(self) -> Iterator[str]:
        self._send(b"lru_crawler metadump all\r\n")
        while (line := self._line()) != b"END":
            word = line.split(b" ", 1)[0]
            if not word.startswith(b"key="):
                raise StoreError(
                    "memcached does not say what it holds: that takes 1.4.31 or newer, with its "
                    "LRU crawler, and nobody else who asks it at the time"
                )
            yield unquote(word.removeprefix(b"key=").decode("ascii", "replace"))

    def item(self, name: str) -> tuple[int, bytes] | None:
        """Return the flags and the data under *name*. Raises `Unreadable` if they are too long."""
        if not name.isascii() or not name.isprintable() or " " in name:
            return None
        self._send(f"get {name}\r\n".encode())
        line = self._line()
        if line == b"END":
            return None
        words = line.split(b" ")
        if len(words) != 4 or words[0] != b"VALUE" or not all(map(bytes.isdigit, words[2:])):
            raise StoreError("memcached failed: what came is no answer to what was asked")
        if int(words[3]) > self._most:
            self.close()  # rather than receive it
            raise too_large(self._most)
        data = self._exactly(int(words[3]))
        if self._line() != b"" or self._line() != b"END":
            raise StoreError("memcached failed: what came is no answer to what was asked")
        return int(words[2]), data

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, line: bytes) -> None:
        until = time.monotonic() + self._deadline
        try:
            if self._socket is None:
                self._socket = TimedSocket(connect(self._address, until), until)
                self._buffer = b""
            self._socket.until = until
            self._socket.sendall(line)
        except (OSError, UnicodeError) as error:
            self.close()
            raise store_error(error) from error

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._receive()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.removesuffix(b"\r")

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _receive(self) -> None:
        assert self._socket is not None
        self._socket.until = time.monotonic() + self._deadline
        try:
            piece = self._socket.recv(PIECE)
            if not piece:
                raise ConnectionResetError
        except OSError as error:
            self.close()
            raise store_error(error) from error
        self._buffer += piece
