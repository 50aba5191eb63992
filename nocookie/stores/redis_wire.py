"""Commands to Redis or Valkey, one server or a cluster, each within a deadline.

redis-py makes the connections and speaks the protocol: URLs, TLS, passwords, RESP. Its clients
are left out, because what they decide by themselves a session store must not leave to chance:

1. A call ends at its deadline, the connecting included. Every wait on a socket ends there;
   redis-py gives each wait a timeout of its own, and repeats a failed command up to ten times.
2. A command that may have reached a server is sent again only if the caller says that twice is
   as good as once (`again`). One that surely was not executed raises an `Undone`.
3. A connection is used by one thread at a time, and only by the process that opened it.
4. What is raised is a `StoreError`, and carries no data. An error that the server replies is
   returned if `expected` names it.
"""

from __future__ import annotations

import random
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from nocookie.errors import ConfigError, StoreError, StoreTimeout

__all__ = [
    "Cluster",
    "Command",
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


class Wire(Protocol):
    """Where a key's command goes."""

    def call(self, key: bytes, command: Command, until: float, again: bool) -> Any:
        """Return the reply of the server that has *key*; an error that it replies, as an
        instance, if it is about the command. *until* is a time of `time.monotonic`."""
        ...

    def primaries(self, until: float) -> list[Node]:
        """Every server that has keys."""
        ...

    def close(self) -> None: ...

    def after_fork(self) -> None: ...


def connect(url: str) -> Wire:
    """Read *url*; no connection is made yet. Raises `ConfigError`, which does not show it."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.connection import Connection, parse_url
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigError(
            "type = 'redis' needs the package redis: pip install nocookie[redis]"
        ) from error

    scheme, _, rest = url.partition("://")
    cluster = scheme in ("redis+cluster", "rediss+cluster")
    if not cluster and scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(
            "url: it begins with redis://, rediss://, unix://, redis+cluster:// or "
            "rediss+cluster://"
        )
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
    if parts.fragment:
        raise ConfigError("url: there is a # in it; in a password it is written %23")
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
        why = "" if options.get("password") else f": {error}"
        raise ConfigError(f"url: redis-py does not take its options{why}") from None

    def node(address: Address | None = None) -> Node:
        where = {"host": address[0], "port": address[1]} if address else {}
        return Node(partial(cls, **{**fixed, **where}), size, address)

    return Cluster(node, seeds) if cluster else OneServer(node())


def _seeds(rest: str) -> tuple[str, list[Address]]:
    """Return *rest* with the first of its hosts, and all of them. Raises ValueError."""
    netloc, slash, after = re.fullmatch(r"([^/?#]*)([/?#]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
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
        self._node.close()

    def after_fork(self) -> None:
        self._node.after_fork()


class Node:
    """One server, and a bounded pool of connections to it."""

    def __init__(self, make: Callable[..., Any], size: int, address: Address | None) -> None:
        self.address = address
        self._make = make
        self._size = size
        self._idle = self._places()
        self._waiting = 0
        self._returned = threading.Condition()

    def ask(self, commands: Sequence[Command], until: float, again: bool) -> list[Any]:
        """Send *commands* in one piece, and return their replies.

        A connection that was closed while it lay idle, as by a restart of the server, is
        replaced, and so is one to a primary that has become a replica.
        """
        import redis

        idle, connection = self._take(until)
        kept: _Connection | None = None
        sent = False
        try:
            if connection is None:
                connection = self._open(until)
            elif not again and not connection.socket.is_quiet():
                self._close_idle(connection)
                connection = self._open(until)
            try:
                sent = True
                replies = connection.ask(commands, until)
            except redis.ConnectionError:
                if not again:
                    raise
                self._close_idle(connection)
                connection = self._open(until)
                replies = connection.ask(commands, until)
            if any(isinstance(reply, redis.ReadOnlyError) for reply in replies):
                self._close_idle(connection)
                connection = self._open(until)
                replies = connection.ask(commands, until)
            kept = connection
            return replies
        except (redis.RedisError, OSError, ValueError) as error:
            raise _store_error(error, sent) from _cause(error)
        finally:
            if connection is not None and kept is None:
                connection.close()
            self._give_back(idle, kept)

    def close(self) -> None:
        idle = self._idle
        self._idle = self._places()
        with self._returned:
            self._returned.notify_all()
        _drain(idle)

    def after_fork(self) -> None:
        # What was inherited is dropped: closing it here does not reach the server.
        self._idle = self._places()
        self._waiting = 0
        self._returned = threading.Condition()

    def _open(self, until: float) -> _Connection:
        socket = _Socket(until)
        driver = self._make(redis_connect_func=socket.shake_hands)
        driver.socket_connect_timeout = driver.socket_timeout = socket.left()
        try:
            driver.connect()
        except BaseException:
            driver.disconnect()
            raise
        return _Connection(driver, socket)

    # -- the pool: a deque of connections on top of places for more. Its append and pop are
    # atomic; the condition is only for those who find it empty.

    def _places(self) -> _Places:
        return deque([None] * self._size)

    def _take(self, until: float) -> tuple[_Places, _Connection | None]:
        """Take the connection used last, or None where one may be opened; return where to put
        it back, too."""
        idle = self._idle
        try:
            return idle, idle.pop()
        except IndexError:
            pass
        with self._returned:
            self._waiting += 1
            try:
                while True:
                    # Only now: what came back before we counted as waiting is found here, and
                    # what comes back later notifies.
                    idle = self._idle
                    try:
                        return idle, idle.pop()
                    except IndexError:
                        pass
                    left = until - time.monotonic()
                    if left <= 0 or not self._returned.wait(left):
                        raise UndoneTimeout("the redis store: every connection is in use")
            finally:
                self._waiting -= 1

    def _give_back(self, idle: _Places, connection: _Connection | None) -> None:
        if idle is self._idle:
            if connection is None:
                idle.appendleft(None)
            else:
                idle.append(connection)
            if self._waiting:
                with self._returned:
                    self._returned.notify()
        elif connection is not None:  # the store was closed meanwhile
            connection.close()

    def _close_idle(self, connection: _Connection) -> None:
        """Close this one, and with it all that lie idle: they are no better."""
        connection.close()
        for _ in range(len(self._idle)):
            try:
                other = self._idle.popleft()
            except IndexError:
                return
            if other is not None:
                other.close()
            self._idle.appendleft(None)


class _Connection(NamedTuple):
    """A connection of redis-py, and the socket that we put under it."""

    driver: Any
    socket: _Socket

    def ask(self, commands: Sequence[Command], until: float) -> list[Any]:
        driver = self.driver
        self.socket.until = until
        packed: list[bytes] = []
        for command in commands:
            packed += driver.pack_command(*command)
        driver.send_packed_command(packed, check_health=False)
        return [self._reply() for _ in commands]

    def _reply(self) -> Any:
        import redis

        try:
            return self.driver.read_response(disable_decoding=True)
        except redis.ResponseError as error:
            return error

    def close(self) -> None:
        self.driver.disconnect()


_Places = deque[_Connection | None]


def _drain(idle: _Places) -> None:
    while True:
        try:
            connection = idle.pop()
        except IndexError:
            return
        if connection is not None:
            connection.close()


class _Socket:
    """A socket on which every wait ends when the call does."""

    __slots__ = ("_socket", "until")

    def __init__(self, until: float) -> None:
        self.until = until

    def shake_hands(self, driver: Any) -> None:
        self._socket = driver._sock
        driver._sock = self
        driver.on_connect()

    def left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def is_quiet(self) -> bool:
        """Whether the server has neither closed the connection nor said what nobody asked."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    # What redis-py uses of a socket.

    def settimeout(self, timeout: float | None) -> None:
        """Of no effect here."""

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(self.left())
        self._socket.sendall(data)

    def recv(self, size: int) -> bytes:
        self._socket.settimeout(self.left())
        data: bytes = self._socket.recv(size)
        return data

    def recv_into(self, buffer: bytearray) -> int:
        self._socket.settimeout(self.left())
        size: int = self._socket.recv_into(buffer)
        return size

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()


def _store_error(error: Exception, sent: bool) -> StoreError:
    import redis

    if isinstance(error, (redis.TimeoutError, TimeoutError)):
        text = "the redis store: no answer within the deadline"
        return StoreTimeout(text) if sent else UndoneTimeout(text)
    text = f"the redis store failed: {type(error).__name__}"
    return StoreError(text) if sent else UndoneError(text)


def _cause(error: Exception) -> Exception | None:
    """The error, if its text is about the connection; others may quote what was sent."""
    import redis

    return error if isinstance(error, (redis.ConnectionError, redis.TimeoutError)) else None


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
        self._asking = threading.Lock()

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
                self._doubtful = True
                if isinstance(error, StoreTimeout) or not (again or isinstance(error, Undone)):
                    raise
                # It is down: another may have its slots by now.
                self._ask_for_slots(until, seen, last=node)
                if self._slots[slot] is node:
                    self._doubtful = True
                    raise
                node, commands = self._slots[slot], (command,)
                continue
            says = _directions(reply)
            if says is None:
                return reply
            word, endpoint = says
            if word == "CLUSTERDOWN":
                self._doubtful = True
                return reply
            there = self._at(endpoint, node)
            if word == "ASK":  # for this time only
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
            node.close()

    def after_fork(self) -> None:
        self._asking = threading.Lock()
        for node in self._nodes.values():
            node.after_fork()

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
        last: Node | None = None,
    ) -> None:
        """Get a newer map than *seen*: from *first* if it answers, from *last* if no other does."""
        if not self._asking.acquire(timeout=max(0.0, until - time.monotonic())):
            raise UndoneTimeout("the redis store: no answer within the deadline")
        try:
            if self._slots is not seen:
                return  # another thread has asked meanwhile
            nodes = list(self._nodes.values())
            random.shuffle(nodes)
            nodes.sort(key=lambda node: (node is last) - (node is first))
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
            self._asking.release()
        if until - time.monotonic() < 0.01:
            raise UndoneTimeout("the redis store: no answer within the deadline")
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
            node.close()


def _directions(reply: Any) -> tuple[str, str] | None:
    """The word and the `host:port` of an error that says where to go; None for anything else."""
    import redis

    if not isinstance(reply, redis.ResponseError):
        return None
    # redis-py gives these errors classes of their own and takes the word off; older ones do not.
    word, _, rest = str(reply).partition(" ")
    for cls in type(reply).__mro__:
        word = {"MovedError": "MOVED", "AskError": "ASK", "ClusterDownError": "CLUSTERDOWN"}.get(
            cls.__name__, word
        )
        if word in ("MOVED", "ASK", "CLUSTERDOWN"):
            return word, rest.rpartition(" ")[2] or rest
    return None
