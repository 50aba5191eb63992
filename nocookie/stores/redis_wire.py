"""Commands to Redis or Valkey, one server or a cluster, each within a deadline.

redis-py reads the URL, connects, and shakes hands: TLS, passwords, databases. hiredis writes the
commands and reads the replies. The clients of redis-py are left out, for what they decide by
themselves a session store must not leave to chance, and because half of a read would be spent in
them.

1. A call ends at its deadline, the connecting included. Every wait on a socket ends there;
   redis-py gives each wait a timeout of its own, and repeats a failed command up to ten times.
2. A command that may have reached a server is sent again only if the caller says that twice is
   as good as once (`again`). One that surely was not executed raises an `Undone`.
3. A connection is used by one thread at a time, and only by the process that opened it.
4. What is raised is a `StoreError` and carries no data. An error that a server replies is
   returned, as an `ErrorReply`: such a command was not executed.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from nocookie.errors import ConfigError, StoreError, StoreTimeout
from nocookie.forks import ProcessLocal
from nocookie.stores.pool import Pool
from nocookie.stores.timed import TimedSocket

__all__ = [
    "Cluster",
    "Command",
    "ErrorReply",
    "Node",
    "OneServer",
    "Undone",
    "UndoneError",
    "UndoneTimeout",
    "Wire",
    "connect",
]

#: A command's words.
Command = tuple[bytes, ...]
Address = tuple[str, int]

#: Of redis-py's connection options, those that a URL may carry. The others are decided here.
URL_OPTIONS: Final = re.compile(
    r"db|username|password|client_name|max_connections|socket_keepalive|socket_read_size|ssl_\w+"
)

#: How many connections to one server a process opens at most: as many as redis-py.
POOL_SIZE: Final = 50

#: How many bytes are received at once, at most.
PIECE: Final = 65536

#: A cluster has so many slots.
SLOTS: Final = 16384
#: How often one call follows the cluster's directions to another node. Two are normal while
#: slots move; more mean that the nodes do not agree.
HOPS: Final = 5


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
        return word if word.isalpha() and word.isupper() else "ERR"


class Wire(Protocol):
    """Where a key's command goes."""

    def call(self, key: bytes, command: Command, until: float, again: bool) -> Any:
        """Return what the server that has *key* replies: bytes, a number, a list, None, or an
        `ErrorReply`. *until* is a time of `time.monotonic`."""
        ...

    def primaries(self, until: float) -> list[Node]:
        """Every server that has keys."""
        ...

    def close(self) -> None: ...


def connect(url: str) -> Wire:
    """Read *url*; no connection is made yet. Raises `ConfigError`, which does not show it."""
    try:
        import hiredis
        import redis
        from redis.backoff import NoBackoff
        from redis.connection import Connection, parse_url
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigError(
            "type = 'redis' needs the packages redis and hiredis: pip install nocookie[redis]"
        ) from error

    scheme, _, rest = url.partition("://")
    cluster = scheme in ("redis+cluster", "rediss+cluster")
    if not cluster and scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(
            "url: it begins with redis://, rediss://, unix://, redis+cluster:// or "
            "rediss+cluster://"
        )
    if "#" in rest:
        raise ConfigError("url: there is a # in it; in a password it is written %23")
    seeds: list[Address] = []
    try:
        if cluster:
            scheme = scheme.removesuffix("+cluster")
            rest, seeds = _seeds(rest)
        parts = urlsplit(f"{scheme}://{rest}")
        options = parse_url(f"{scheme}://{rest}")  # type: ignore[no-untyped-call]
        _ = parts.port  # raises for what is not a number
    except ValueError:  # its text may show the URL
        raise ConfigError("url: it cannot be read as a URL of Redis") from None
    if scheme == "unix":
        if not parts.path.strip("/"):
            raise ConfigError(
                "url: unix:// needs the path of a socket, as in unix:///run/redis.sock"
            )
    elif not re.fullmatch(r"/?\d*/?", parts.path):
        raise ConfigError("url: after the host there is the number of a database, or nothing")
    cls = options.pop("connection_class", Connection)
    for name in options:
        if name not in ("host", "port", "path") and not URL_OPTIONS.fullmatch(name):
            raise ConfigError(f"url: {name} cannot be set here")
    if cluster and options.get("db"):
        raise ConfigError("url: a cluster has only the database 0")
    size = options.pop("max_connections", POOL_SIZE)
    if size < 1:
        raise ConfigError("url: max_connections is at least 1")
    fixed = {**options, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
    try:
        cls(**fixed)
    except (TypeError, ValueError, redis.RedisError) as error:
        # Other errors may quote a value; these name an option.
        why = f": {error}" if isinstance(error, TypeError) else ""
        raise ConfigError(f"url: redis-py does not take its options{why}") from None

    def node(address: Address | None = None) -> Node:
        where = {"host": address[0], "port": address[1]} if address else {}
        return Node(partial(cls, **{**fixed, **where}), hiredis, size, address)

    return Cluster(node, seeds) if cluster else OneServer(node())


def _seeds(rest: str) -> tuple[str, list[Address]]:
    """Return *rest* with the first of its hosts, and all of them. Raises ValueError."""
    netloc, slash, after = re.fullmatch(r"([^/?]*)([/?]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    user, at, hosts = netloc.rpartition("@")
    seeds = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise ValueError
        seeds.append((parts.hostname, parts.port or 6379))
    first = hosts.partition(",")[0]
    return f"{user}{at}{first}{slash}{after}", seeds


# -- one server ----------------------------------------------------------------------------------


class OneServer:
    def __init__(self, node: Node) -> None:
        self._node = node

    def call(self, key: bytes, command: Command, until: float, again: bool) -> Any:
        return self._node.ask((command,), until, again)[0]

    def primaries(self, until: float) -> list[Node]:
        return [self._node]

    def close(self) -> None:
        self._node.pool.here().close()


class Node:
    """One server, and a bounded pool of connections to it."""

    def __init__(
        self, make: Callable[..., Any], hiredis: Any, size: int, address: Address | None
    ) -> None:
        self.address = address
        self._make = make
        self._hiredis = hiredis
        self.pool: ProcessLocal[Pool[_Connection]] = ProcessLocal(partial(Pool, size))

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
        kept: _Connection | None = None
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
            raise _timeout(sent) from error
        except (OSError, ValueError) as error:
            kind = StoreError if sent else UndoneError
            raise kind(f"the redis store failed: {type(error).__name__}") from error
        finally:
            if connection is not None and kept is None:
                connection.close()
            pool.give_back(places, kept)

    def _open(self, until: float) -> _Connection:
        import redis

        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection = _Connection(self._hiredis, until)
        driver = self._make(redis_connect_func=connection.shake_hands)
        driver.socket_connect_timeout = driver.socket_timeout = left
        try:
            driver.connect()
        except redis.TimeoutError as error:
            raise _timeout(sent=False) from error
        except redis.RedisError as error:
            raise UndoneError(f"the redis store cannot connect: {type(error).__name__}") from error
        connection.driver = driver
        return connection

    def _reopened(self, connection: _Connection, until: float) -> _Connection:
        connection.close()
        return self._open(until)


class _Connection:
    """A connection on which every wait ends when the call does."""

    __slots__ = ("_pack", "_reader", "_until", "driver", "socket")

    def __init__(self, hiredis: Any, until: float) -> None:
        self._until = until
        self._pack: Callable[[Command], bytes] = hiredis.pack_command
        self._reader = hiredis.Reader(protocolError=ValueError, replyError=ErrorReply)
        self.driver: Any = None
        self.socket: TimedSocket

    def ask(self, commands: Sequence[Command], until: float) -> list[Any]:
        reader, socket = self._reader, self.socket
        socket.until = until
        socket.sendall(b"".join(map(self._pack, commands)))
        replies = []
        for _ in commands:
            while (reply := reader.gets()) is False:
                piece = socket.recv(PIECE)
                if not piece:
                    raise ConnectionResetError
                reader.feed(piece)
            replies.append(reply)
        if reader.has_data():
            raise ValueError("more replies than commands")
        return replies

    def shake_hands(self, driver: Any) -> None:
        """Have redis-py do it, within the deadline."""
        self.socket = driver._sock = TimedSocket(driver._sock, self._until)
        driver.on_connect()

    def close(self) -> None:
        self.driver.disconnect()  # which closes the socket, too


def _timeout(sent: bool) -> StoreTimeout:
    text = "the redis store: no answer within the deadline"
    return StoreTimeout(text) if sent else UndoneTimeout(text)


# -- a cluster -----------------------------------------------------------------------------------


class Cluster:
    """Several servers, each with the keys of some slots.

    Which server has a slot is asked when it is not known, and again when the answer turns out to
    be old: a node says MOVED, or cannot be reached.
    """

    def __init__(self, node: Callable[[Address], Node], seeds: Sequence[Address]) -> None:
        from redis.crc import key_slot

        self._key_slot: Callable[[bytes], int] = key_slot
        self._node = node
        self._seeds = {address: node(address) for address in seeds}
        #: Every node that we know of, replicas and seeds among them.
        self._nodes = dict(self._seeds)
        self._slots: list[Node | None] = [None] * SLOTS
        self._doubtful = True
        self._failed: Node | None = None
        self._asking = ProcessLocal(threading.Lock)

    def call(self, key: bytes, command: Command, until: float, again: bool) -> Any:
        slot = self._key_slot(key)
        seen = self._slots
        if self._doubtful:
            self._ask_for_slots(until, seen)
        node = self._slots[slot]
        commands: tuple[Command, ...] = (command,)
        for _ in range(HOPS):
            if node is None:
                self._doubtful = True
                raise UndoneError("the redis store: a part of the cluster has no server")
            seen = self._slots
            try:
                reply = node.ask(commands, until, again)[-1]
            except StoreError as error:
                self._doubtful, self._failed = True, node
                if isinstance(error, StoreTimeout) or not (again or isinstance(error, Undone)):
                    raise
                # It is down: another may have its slots by now.
                self._ask_for_slots(until, seen)
                if self._slots[slot] is node:
                    self._doubtful = True
                    raise
                node, commands = self._slots[slot], (command,)
                continue
            if type(reply) is not ErrorReply:
                return reply
            if reply.word not in ("MOVED", "ASK"):
                self._doubtful |= reply.word in ("CLUSTERDOWN", "READONLY")
                return reply
            there = self._at(reply.text.split(" ")[2], node)
            if reply.word == "ASK":  # for this time only
                node, commands = there, ((b"ASKING",), command)
            else:
                self._ask_for_slots(until, seen, first=there)
                # What it says about this slot is newer than any map.
                self._slots[slot] = node = there
                commands = (command,)
        raise UndoneError("the redis store: the nodes of the cluster do not agree")

    def primaries(self, until: float) -> list[Node]:
        self._ask_for_slots(until, self._slots)
        return list({id(node): node for node in self._slots if node is not None}.values())

    def close(self) -> None:
        for node in list(self._nodes.values()):
            node.pool.here().close()

    def _at(self, endpoint: str, asked: Node) -> Node:
        """The node at `host:port`; without a host it is the one of the node that was asked."""
        host, _, port = endpoint.rpartition(":")
        assert asked.address is not None
        address = host or asked.address[0], int(port)
        return self._nodes.setdefault(address, self._node(address))

    def _ask_for_slots(
        self,
        until: float,
        seen: list[Node | None],
        first: Node | None = None,
    ) -> None:
        """Get a newer map than *seen*: from *first* if it answers, and from the node that failed
        last only if no other does."""
        asking = self._asking.here()
        if not asking.acquire(timeout=max(0.0, until - time.monotonic())):
            raise _timeout(sent=False)
        try:
            if self._slots is not seen:
                return  # another thread has asked meanwhile
            nodes = list(self._nodes.values())
            random.shuffle(nodes)
            nodes.sort(key=lambda node: (node is self._failed) - (node is first))
            for node in nodes:
                # Half of what is left, so that one that hangs leaves time for the next.
                now = time.monotonic()
                try:
                    (ranges,) = node.ask([(b"CLUSTER", b"SLOTS")], (now + until) / 2, True)
                except StoreError:
                    continue
                if isinstance(ranges, list) and ranges:
                    self._take_map(ranges, node)
                    return
        finally:
            asking.release()
        if until - time.monotonic() < 0.01:
            raise _timeout(sent=False)
        raise UndoneError("the redis store: no node of the cluster answers")

    def _take_map(self, ranges: list[Any], asked: Node) -> None:
        slots: list[Node | None] = [None] * SLOTS
        nodes = dict(self._seeds)
        for begin, end, *servers in ranges:
            for number, (host, port, *_) in enumerate(servers):
                name = (host or b"").decode()
                node = self._at(f"{'' if name == '?' else name}:{port}", asked)
                assert node.address is not None
                nodes[node.address] = node
                if number == 0:
                    slots[begin : end + 1] = [node] * (end + 1 - begin)
        gone = [node for address, node in self._nodes.items() if address not in nodes]
        self._slots, self._nodes, self._doubtful = slots, nodes, False
        for node in gone:
            node.pool.here().close()
