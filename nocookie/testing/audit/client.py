"""HTTP as an attacker speaks it: every byte of a request is the caller's own.

`http.client` refuses control characters, which is right for clients, and what a rig must be able
to send. It reads the answers.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["LONGEST_BODY", "Answer", "Client", "NoAnswer", "OutOfTime"]

#: Bytes that a body may have: more is no page.
LONGEST_BODY: Final = 16 * 1024 * 1024


class NoAnswer(Exception):
    """The server closed the connection, took too long, or did not come to an end."""


class OutOfTime(Exception):
    """All the time of the client is over."""


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def header(self, name: str) -> str | None:
        """Return the header, all of its lines."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def head(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.headers)


class Client:
    """Makes requests below one URL, each on a connection of its own. An answer may take
    *patience* seconds, from the first byte to the last."""

    def __init__(self, base: str, patience: float, origin: str | None = None) -> None:
        #: When its time is over, by `time.monotonic`.
        self.until = math.inf
        url = urlsplit(base)
        assert url.hostname is not None
        self._tls = url.scheme == "https"
        self._address = (url.hostname, url.port or (443 if self._tls else 80))
        self._patience = patience
        #: What links and redirects to it begin with.
        self.origin = origin or f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
        self.mount = url.path.rstrip("/")
        self.host = url.netloc.rpartition("@")[2]

    def send(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        only_head: bool = False,
    ) -> Answer:
        """Make one request and return the answer. Texts are sent as UTF-8, unchanged. With
        *only_head* hang up after the head. Raises `NoAnswer` and `OutOfTime`."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        raw = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body
        began = time.monotonic()
        patience = min(self._patience, self.until - began)
        if patience <= 0:
            raise OutOfTime
        try:
            with closing(self._connection(patience)) as connection:
                return self._exchange(connection, method, raw, only_head, began, patience)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= self.until:
                raise OutOfTime from error
            raise NoAnswer(f"no answer: {type(error).__name__}") from error

    def _connection(self, patience: float) -> socket.socket:
        connection = socket.create_connection(self._address, patience)
        if self._tls:
            context = ssl.create_default_context()
            return context.wrap_socket(connection, server_hostname=self._address[0])
        return connection

    def _exchange(
        self,
        connection: socket.socket,
        method: str,
        raw: bytes,
        only_head: bool,
        began: float,
        patience: float,
    ) -> Answer:
        refused: OSError | None = None
        try:
            connection.sendall(raw)
        except OSError as error:
            # A server that refuses a long request answers before it has read it.
            refused = error
        timed = _Timed(connection, began + patience)
        response = http.client.HTTPResponse(timed, method=method)  # type: ignore[arg-type]
        try:
            response.begin()
            body = b"" if only_head else response.read(LONGEST_BODY + 1)
            if len(body) > LONGEST_BODY:
                raise NoAnswer(f"no answer: it is longer than {LONGEST_BODY} bytes")
            if response.length and not only_head:
                raise http.client.IncompleteRead(body, response.length)
        except TimeoutError:
            raise
        except OSError:
            raise refused or NoAnswer("no answer: it hung up") from None
        finally:
            response.close()
        return Answer(response.status, response.getheaders(), body, time.monotonic() - began)


class _Timed(io.RawIOBase):
    """What comes from a connection up to a time: a server that drips must not hold us. Raises
    `TimeoutError`."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection = connection
        self._until = until

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
