"""The places where sessions may lie, one row each: what holds for every store is proven on every
row.

A place is a `type` with its options, on a real server where there is one. The options are JSON, so
that a fresh interpreter can open the same place; the place is empty when a test begins.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from realservers import missing

from nocookie.options import resolve
from nocookie.stores import open_store
from nocookie.stores.memory import MemoryStore

#: Seconds. The races are about exactness: a busy machine must not end one by a timeout.
PATIENT = 20.0


class Place:
    """A store that is open for sessions: `Session({}, **place.options)`."""

    #: The process of the server, if there is one.
    server: Any = None

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.options = {"deadline": PATIENT, **options}
        self.powers = KINDS[name].powers

    def at(self, clock: Callable[[], float]) -> dict[str, Any]:
        """The options with which the sessions and their store go by this clock."""
        return {**self.options, "clock": clock}

    def store(self) -> Any:
        """The store itself, as the sessions of this process use it."""
        type = self.options["type"]
        return open_store(type, resolve(None, self.options)) if isinstance(type, str) else type

    def through(self, port: int) -> dict[str, Any]:
        """The options by which the same place is reached over another port of this host."""
        raise NotImplementedError

    def dump(self) -> Iterator[bytes]:
        """Yield all that is stored, with names and logs, as near to the raw bytes as one gets."""
        raise NotImplementedError

    def folder(self) -> Path | None:
        """Where the files are that sessions alone are kept in, if they are."""
        return None


class MemoryPlace(Place):
    def __init__(self, name: str) -> None:
        super().__init__(name, type=MemoryStore())

    def at(self, clock: Callable[[], float]) -> dict[str, Any]:
        self.options["type"]._clock = clock
        return super().at(clock)

    def dump(self) -> Iterator[bytes]:
        yield repr(vars(self.options["type"])).encode()


class FolderPlace(Place):
    """Files of this host."""

    def __init__(self, name: str, folder: Path, **options: Any) -> None:
        super().__init__(name, **options)
        self._folder = folder

    def dump(self) -> Iterator[bytes]:
        for path in self._folder.rglob("*"):
            yield str(path.relative_to(self._folder)).encode()
            if path.is_file():
                yield path.read_bytes()

    def folder(self) -> Path | None:
        return self._folder


def memory(request: pytest.FixtureRequest) -> Place:
    return MemoryPlace("memory")


def file(request: pytest.FixtureRequest) -> Place:
    folder = request.getfixturevalue("tmp_path") / "place"
    return FolderPlace("file", folder / "sessions", type="file", data_dir=str(folder))


class ServerPlace(Place):
    """One server process, reached over one port."""

    def __init__(self, name: str, server: Any, url: Callable[[int], str], **options: Any) -> None:
        super().__init__(name, url=url(server.port), **options)
        self.server = server
        self._url = url

    def through(self, port: int) -> dict[str, Any]:
        return {"url": self._url(port)}

    def dump(self) -> Iterator[bytes]:
        yield (self.server.folder / "server.log").read_bytes()


class PostgresPlace(ServerPlace):
    def __init__(self, name: str, server: Any, database: str) -> None:
        url = partial(server.url, database)
        super().__init__(name, server, url, type="sqlalchemy", create_table=True)
        self._database = database

    def dump(self) -> Iterator[bytes]:
        yield from super().dump()
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        for (table,) in self.server.execute(tables, self._database):
            for (row,) in self.server.execute(f"SELECT t::text FROM {table} t", self._database):
                yield row.encode()


class ValkeyPlace(ServerPlace):
    def dump(self) -> Iterator[bytes]:
        yield from super().dump()
        yield from _valkey_dump(self.server.port)
        logs = list(self.server.folder.rglob("*.aof"))
        assert logs
        for path in logs:
            yield path.read_bytes()


class ClusterPlace(Place):
    """Six nodes: no one port to put a relay before, and no one process to freeze."""

    def __init__(self, name: str, cluster: Any) -> None:
        super().__init__(name, type="redis", url=cluster.url)
        self._cluster = cluster

    def dump(self) -> Iterator[bytes]:
        for node in self._cluster.nodes:
            yield (node.folder / "server.log").read_bytes()
        for node in self._cluster.primaries():
            yield from _valkey_dump(node.port)


def _valkey_dump(port: int) -> Iterator[bytes]:
    import redis

    with redis.Redis(port=port) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            assert kind in (b"hash", b"zset")
            yield key
            if kind == b"zset":
                yield from client.zrange(key, 0, -1)
                continue
            for pair in client.hgetall(key).items():
                yield b"\n".join(pair)


class MemcachedPlace(ServerPlace):
    def dump(self) -> Iterator[bytes]:
        yield from super().dump()
        listed = self.server.ask("lru_crawler metadump all", b"END\r\n")
        yield listed
        for line in listed.splitlines()[:-1]:
            key = line.split()[0].removeprefix(b"key=").decode()
            yield self.server.ask(f"get {key}", b"END\r\n")


def sqlite(request: pytest.FixtureRequest) -> Place:
    folder = request.getfixturevalue("tmp_path") / "place"
    folder.mkdir()
    url = f"sqlite:///{folder / 'sessions.db'}"
    return FolderPlace("sqlite", folder, type="sqlalchemy", url=url, create_table=True)


def postgres(request: pytest.FixtureRequest) -> Place:
    server = request.getfixturevalue("postgres")
    return PostgresPlace("postgres", server, request.getfixturevalue("postgres_database"))


def valkey(request: pytest.FixtureRequest) -> Place:
    server = request.getfixturevalue("valkey_that_writes")
    return ValkeyPlace("valkey", server, "redis://127.0.0.1:{}".format, type="redis")


def cluster(request: pytest.FixtureRequest) -> Place:
    return ClusterPlace("cluster", request.getfixturevalue("valkey_cluster"))


def memcached(request: pytest.FixtureRequest) -> Place:
    server = request.getfixturevalue("memcached")
    return MemcachedPlace("memcached", server, "127.0.0.1:{}".format, type="memcached")


class Kind(NamedTuple):
    """One row."""

    make: Callable[[pytest.FixtureRequest], Place]
    #: shared: other processes see it. durable: what was acknowledged outlives its server, or
    #: where there is none, the process. remote: a server that is reached over one port. local:
    #: files of this host. swept: what has expired stays until it is purged.
    powers: frozenset[str]


def _kind(make: Callable[[pytest.FixtureRequest], Place], *powers: str) -> Kind:
    return Kind(make, frozenset(powers))


KINDS = {
    "memory": _kind(memory, "swept"),
    "file": _kind(file, "shared", "durable", "local", "swept"),
    "sqlite": _kind(sqlite, "shared", "durable", "local", "swept"),
    "postgres": _kind(postgres, "shared", "durable", "remote", "swept"),
    "valkey": _kind(valkey, "shared", "durable", "remote"),
    "cluster": _kind(cluster, "shared"),
    "memcached": _kind(memcached, "shared", "remote"),
}

#: Which rows talk to a server that the core suite does without.
SERVERS = frozenset({"postgres", "valkey", "cluster", "memcached"})


def params(*powers: str) -> list[Any]:
    """The rows that have these powers, as parameters of the fixture `place`."""
    return [
        pytest.param(name, marks=[pytest.mark.server] if name in SERVERS else [])
        for name, kind in KINDS.items()
        if kind.powers.issuperset(powers)
    ]


def places(*powers: str) -> Any:
    """Have a test run on every place that has these powers."""
    return pytest.mark.parametrize("place", params(*powers), indirect=True)


def needs(package: str) -> None:
    """Skip the test that needs *package* where it is not; a failure where CI=true."""
    if importlib.util.find_spec(package) is None:
        missing(package, f"pip install {package}")
