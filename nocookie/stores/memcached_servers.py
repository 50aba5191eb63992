"""Where memcached servers are, and our connections to them.

One connection is used by one thread at a time, and only by the process that opened it. Connecting
ends at the deadline of the call that it is for; only looking up a name takes its own time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from nocookie.errors import ConfigError, StoreTimeout
from nocookie.forks import ProcessLocal
from nocookie.stores.memcached_wire import Connection, store_error
from nocookie.stores.pool import Places, Pool
from nocookie.stores.timed import Address, TimedSocket, connect

__all__ = ["Server", "addresses"]


def addresses(url: str) -> list[Address]:
    """Return the servers in *url*, each once. Raises `ConfigError`, which does not show *url*."""
    found = [_address(text.strip()) for text in url.split(";")]
    if None in found:
        raise ConfigError(
            "url for memcached is host:port, or unix:/path; several with ';' between them"
        )
    return [address for address in dict.fromkeys(found) if address is not None]


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

    def __init__(self, address: Address, pool_size: int) -> None:
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
            sock = TimedSocket(connect(self._address, until), until)
        except (OSError, UnicodeError) as error:  # the latter of a name that cannot be looked up
            raise store_error(error) from error
        return Connection(sock, pool, places)
