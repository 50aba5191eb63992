"""Connections to one Redis or Valkey, and the errors that tell whether a command was executed.

hiredis writes the commands and takes the replies apart; the rest is a socket with a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nocookie.errors import StoreError, StoreTimeout
from nocookie.forks import ProcessLocal
from nocookie.stores.pool import Pool
from nocookie.stores.redis_url import Settings
from nocookie.stores.timed import Address, TimedSocket, connect, encrypt

__all__ = [
    "Command",
    "Connection",
    "ErrorReply",
    "Node",
    "Undone",
    "UndoneError",
    "UndoneTimeout",
    "timeout",
]

#: A command's words.
Command = tuple[bytes, ...]


class Undone(Exception):
    """The other face of some errors: no server has executed the command, or ever will."""


class UndoneError(StoreError, Undone):
    pass


class UndoneTimeout(StoreTimeout, Undone):
    pass


class ErrorReply(Exception):
    """A server's refusal. It is returned, not raised."""

    @property
    def text(self) -> str:
        return str(self)

    @property
    def word(self) -> str:
        """Which one: MOVED, OOM, NOSCRIPT... The rest of the text may quote what was sent."""
        word = self.text.partition(" ")[0]
        return word if word.isascii() and word.isalpha() and word.isupper() else "ERR"


def timeout(sent: bool) -> StoreTimeout:
    text = "the redis store: no answer within the deadline"
    return StoreTimeout(text) if sent else UndoneTimeout(text)


class Node:
    """One server, and a bounded pool of connections to it."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self.address = address
        self._settings = settings
        make = partial(Pool[Connection], settings.max_connections)
        self.pool: ProcessLocal[Pool[Connection]] = ProcessLocal(make)

    def ask(self, commands: Sequence[Command], until: float, again: bool) -> list[Any]:
        """Send *commands* in one piece, and return their replies.

        A connection that was closed while it lay idle, as by a restart of the server, is
        replaced, and so is one to a primary that has become a replica.
        """
        pool = self.pool.here()
        try:
            places, connection = pool.take(until)
        except TimeoutError:
            raise UndoneTimeout("the redis store: every connection is in use") from None
        kept: Connection | None = None
        sent = False
        try:
            if connection is None:
                connection = self._open(until)
            elif not again and not connection.socket.is_quiet():
                connection = self._reopened(connection, until)
            sent = True
            try:
                replies = connection.ask(commands, until)
            except OSError as error:
                if not again or isinstance(error, TimeoutError):
                    raise
                connection = self._reopened(connection, until)
                replies = connection.ask(commands, until)
            if type(replies[-1]) is ErrorReply and "READONLY" in replies[-1].text:
                connection = self._reopened(connection, until)
                replies = connection.ask(commands, until)
            kept = connection
            return replies
        except TimeoutError as error:
            raise timeout(sent) from error
        except OSError as error:
            kind = StoreError if sent else UndoneError
            raise kind(f"the redis store failed: {type(error).__name__}") from error
        except ValueError:  # its text is of what was received
            raise StoreError("the redis store failed: what came is no reply") from None
        finally:
            if connection is not None and kept is None:
                connection.close()
            pool.give_back(places, kept)

    def _open(self, until: float) -> Connection:
        try:
            return Connection(self.address, self._settings, until)
        except TimeoutError as error:
            raise timeout(sent=False) from error
        except OSError as error:
            why = type(error).__name__
            raise UndoneError(f"the redis store cannot connect: {why}") from error
        except ValueError:  # of a name that cannot be looked up, or of what was received
            raise UndoneError("the redis store cannot connect: ValueError") from None

    def _reopened(self, connection: Connection, until: float) -> Connection:
        connection.close()
        return self._open(until)


class Connection:
    """A connection on which every wait ends when the call does.

    Raises TimeoutError and other OSErrors, and ValueError for what is no reply. After any of them
    it is of no more use.
    """

    __slots__ = ("_pack", "_reader", "_size", "socket")

    socket: TimedSocket

    def __init__(self, address: Address, settings: Settings, until: float) -> None:
        """Connect and shake hands. Raises `UndoneError`, too: if the server refuses."""
        import hiredis

        self._pack: Callable[[Any], bytes] = hiredis.pack_command
        self._reader = hiredis.Reader(protocolError=ValueError, replyError=ErrorReply)
        self._size = settings.socket_read_size
        sock = connect(address, until, settings.socket_keepalive)
        if settings.tls is None or isinstance(address, str):
            self.socket = TimedSocket(sock, until)
        else:
            try:
                context = settings.tls.context()
            except BaseException:
                sock.close()
                raise
            self.socket = encrypt(sock, context, address[0], until)
        try:
            self._shake_hands(settings, until)
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        # Of a pool that was dropped, or is another process's. Unless there was no connection.
        if hasattr(self, "socket"):
            self.close()

    def ask(self, commands: Sequence[Command], until: float) -> list[Any]:
        reader, socket = self._reader, self.socket
        socket.until = until
        socket.sendall(b"".join(map(self._pack, commands)))
        replies = []
        for _ in commands:
            while (reply := reader.gets()) is False:
                piece = socket.recv(self._size)
                if not piece:
                    raise ConnectionResetError
                reader.feed(piece)
            replies.append(reply)
        if reader.has_data():
            raise ValueError("more replies than commands")
        return replies

    def close(self) -> None:
        self.socket.close()

    def _shake_hands(self, settings: Settings, until: float) -> None:
        """All in one trip."""
        commands: list[Command] = []
        if settings.username:
            user = settings.username.encode(), settings.password.encode()
            commands.append((b"AUTH", *user))
        elif settings.password:
            commands.append((b"AUTH", settings.password.encode()))
        if settings.client_name:
            commands.append((b"CLIENT", b"SETNAME", settings.client_name.encode()))
        if settings.db:
            commands.append((b"SELECT", b"%d" % settings.db))
        if not commands:
            return
        for reply in self.ask(commands, until):
            if type(reply) is ErrorReply:
                raise UndoneError(f"the redis store cannot connect: {reply.word}")
            if reply != b"OK":
                raise ValueError("not what is replied to that")
