"""Commands to memcached servers, each within a deadline.

pymemcache speaks the commands that are rare. The two that every request needs, `gets` and `cas`,
are spoken here, in the same protocol and on the same socket: half of a read was spent in the
layers of its client, which are there for what a store does not use. So is one that it lacks: to
delete on a condition. Connecting is done here, too, because pymemcache tries only one of the
addresses that a name has.

1. A command ends at its deadline, the connecting included.
2. Nothing is sent twice. Whether a write whose answer was lost took effect, nobody knows.
3. A connection on which a command did not come to its end is closed, and so is one on which there
   is more than an answer: a late answer is never read as the answer to the next command. One is
   used by one thread at a time, and only by the process that opened it.
4. What is raised is a `StoreError` and carries no data.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from nocookie.errors import ConfigError, StoreError, StoreTimeout
from nocookie.forks import ProcessLocal
from nocookie.stores.pool import Places, Pool
from nocookie.stores.timed import TimedSocket

__all__ = ["Address", "Connection", "Server", "addresses"]

#: That of a socket, or a host and a port.
Address = str | tuple[str, int]

#: How many bytes are received at once, at most.
PIECE: Final = 8192
#: What comes after an item.
AFTER_ITEM: Final = b"\r\nEND\r\n"

#: memcached's words for what can be helped, and how.
ADVICE: Final = {
    b"too large": "the record is larger than an item may be (memcached's option -I)",
    b"out of memory": "it has no memory left, and may not evict (memcached's option -M)",
}


def addresses(url: str) -> list[Address]:
    """Raises `ConfigError`, which does not show *url*."""
    found = [_address(text.strip()) for text in url.split(";")]
    if None in found or len(set(found)) < len(found):
        raise ConfigError(
            "url for memcached is host:port, or unix:/path; several with ';' between them, each "
            "one once"
        )
    return [address for address in found if address is not None]


def _address(text: str) -> Address | None:
    if re.fullmatch(r"unix:/.+", text):
        return text.removeprefix("unix:")
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::([0-9]{1,5}))?", text)
    if match is None:
        return None
    host, port = match[1] or match[2], int(match[3] or 11211)
    return (host.lower(), port) if 0 < port < 65536 else None


class Server:
    """One server, and our connections to it."""

    def __init__(self, client: Any, address: Address, pool_size: int) -> None:
        self._client = client
        self._address = address
        self.pool: ProcessLocal[Pool[Connection]] = ProcessLocal(partial(Pool, pool_size))
        self._seed = hashlib.blake2b(f"{address}".encode(), digest_size=8)

    def rank(self, key: str) -> bytes:
        rank = self._seed.copy()
        rank.update(key.encode())
        return rank.digest()

    @contextmanager
    def connection(self, until: float) -> Iterator[Connection]:
        """A connection, for one thread, on which every wait ends at *until*."""
        connection = self.take(until)
        try:
            yield connection
        finally:
            self.give_back(connection)

    def take(self, until: float) -> Connection:
        pool = self.pool.here()
        try:
            places, connection = pool.take(until)
        except TimeoutError:
            raise StoreTimeout("memcached: every connection is in use") from None
        try:
            if connection is not None:
                connection.sock.until = until
                if connection.sock.is_quiet():
                    return connection
                connection.close()
            return self._open(until, pool, places)
        except BaseException:
            pool.give_back(places, None)
            raise

    def give_back(self, connection: Connection) -> None:
        if connection.usable:
            connection.pool.give_back(connection.places, connection)
        else:
            connection.pool.give_back(connection.places, None)
            connection.close()

    def _open(self, until: float, pool: Pool[Connection], places: Places[Connection]) -> Connection:
        try:
            sock = _connect(self._address, until)
        except (OSError, UnicodeError) as error:  # the latter of a name that cannot be looked up
            raise _store_error(error) from error
        client = self._client(self._address, default_noreply=False)
        client.sock = sock
        return Connection(client, sock, pool, places)


class Connection:
    """The commands. A thread has it for itself."""

    def __init__(
        self,
        client: Any,
        sock: TimedSocket,
        pool: Pool[Connection],
        places: Places[Connection],
    ) -> None:
        self._client = client
        self.sock = sock
        #: What it belongs to.
        self.pool, self.places = pool, places
        #: Connections are numbered as they are opened.
        self.number = next(_numbers)
        #: False from the beginning of a command until its answer is read to the end.
        self.usable = True

    def gets(self, name: bytes) -> tuple[bytes | None, bytes]:
        """Return the item, and the token for `cas`; without an item, the token is empty."""
        item, token = self._ask(self._gets, name)
        if token == b"0":
            raise StoreError("memcached runs without cas (its option -C): sessions need it")
        return item, token

    def cas(self, name: bytes, item: bytes, token: bytes, exptime: int) -> bool:
        """Replace the item, if it is still the one that came with *token*."""
        return bool(self._ask(self._cas, name, item, token, exptime))

    def add(self, name: bytes, item: bytes, exptime: int) -> bool:
        return bool(self._ask(self._client.add, name, item, exptime))

    def replace(self, name: bytes, item: bytes, exptime: int) -> bool:
        return bool(self._ask(self._client.replace, name, item, exptime))

    def delete(self, name: bytes) -> bool:
        """Return whether there was an item."""
        return bool(self._ask(self._client.delete, name))

    def delete_if(self, name: bytes, token: bytes) -> bool:
        """Delete the item, if it is still the one that came with *token*. This takes no memory,
        which replacing it by one that is over would."""
        return bool(self._ask(self._delete_if, name, token))

    def close(self) -> None:
        self._client.close()
        self.sock.close()

    def _ask(self, command: Callable[..., Any], *arguments: Any) -> Any:
        self.usable = False
        try:
            answer = command(*arguments)
        except OSError as error:
            raise _store_error(error) from error
        except Exception as error:
            # Not `from error`: its text may be what was received.
            raise _store_error(error) from None
        self.usable = True
        return answer

    # -- spoken here. Each is one line out, and what comes back mostly one piece.

    def _gets(self, name: bytes) -> tuple[bytes | None, bytes]:
        self.sock.sendall(b"gets %b\r\n" % name)
        answer = self.sock.recv(PIECE)
        while (line_end := answer.find(b"\r\n")) < 0:
            answer += self._more()
        if answer == b"END\r\n":
            return None, b""
        value, its_name, _, size, token = _words(answer[:line_end])
        begin = line_end + 2
        end = begin + int(size)
        if len(answer) < end + len(AFTER_ITEM):
            answer = self._whole(answer, end + len(AFTER_ITEM))
        if value != b"VALUE" or its_name != name or answer[end:] != AFTER_ITEM:
            raise _UnexpectedAnswer
        return answer[begin:end], token

    def _cas(self, name: bytes, item: bytes, token: bytes, exptime: int) -> bool:
        command = b"cas %b 0 %d %d %b\r\n%b\r\n"
        self.sock.sendall(command % (name, exptime, len(item), token, item))
        answer = self.sock.recv(PIECE)
        while not answer.endswith(b"\r\n"):
            answer += self._more()
        if answer == b"STORED\r\n":
            return True
        if answer in (b"EXISTS\r\n", b"NOT_FOUND\r\n"):
            return False
        raise _UnexpectedAnswer(answer)

    def _delete_if(self, name: bytes, token: bytes) -> bool:
        self.sock.sendall(b"md %b C%b\r\n" % (name, token))
        answer = self.sock.recv(PIECE)
        while not answer.endswith(b"\r\n"):
            answer += self._more()
        if answer == b"HD\r\n":
            return True
        if answer in (b"EX\r\n", b"NF\r\n"):
            return False
        raise _UnexpectedAnswer(answer)

    def _whole(self, answer: bytes, size: int) -> bytes:
        """Return *answer* with what is missing to *size* bytes."""
        pieces = [answer]
        missing = size - len(answer)
        while missing > 0:
            pieces.append(self._more(missing))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _more(self, size: int = PIECE) -> bytes:
        piece = self.sock.recv(size)
        if not piece:
            raise ConnectionResetError
        return piece


class _UnexpectedAnswer(Exception):
    """An answer that refuses, or is none; with it, if it may be a refusal."""


def _words(line: bytes) -> list[bytes]:
    """The five words of what comes before an item."""
    words = line.split(b" ")
    if len(words) != 5:
        raise _UnexpectedAnswer(line)
    return words


def _connect(address: Address, until: float) -> TimedSocket:
    """Connect to the first that answers of the addresses that a name has."""
    targets: list[tuple[int, Any]]
    if isinstance(address, str):
        targets = [(socket.AF_UNIX, address)]
    else:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        targets = [(family, target) for family, _, _, _, target in found]
    while True:
        family, target = targets.pop(0)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            sock.connect(target)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return TimedSocket(sock, until)
        except BaseException as error:
            sock.close()
            if not targets or not isinstance(error, OSError):
                raise


def _store_error(error: Exception) -> StoreError:
    """What happened, without data and without the address."""
    if isinstance(error, TimeoutError):
        return StoreTimeout("memcached did not answer in time")
    if isinstance(error, OSError):
        return StoreError(f"memcached failed: {error.strerror or type(error).__name__}")
    said = error.args[0] if error.args and isinstance(error.args[0], bytes) else b""
    for words, advice in ADVICE.items():
        if words in said:
            return StoreError(f"memcached refused: {advice}")
    return StoreError(f"memcached failed: {type(error).__name__}")


_numbers: Final = itertools.count()
