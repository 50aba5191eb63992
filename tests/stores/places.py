"""The places where sessions may lie, one row each: what holds for every store is proven on every
row.

A place is a `type` with its options, on a real server where there is one. The options are JSON, so
that a fresh interpreter can open the same place; the place is empty when a test begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

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


class Kind(NamedTuple):
    """One row."""

    make: Callable[[pytest.FixtureRequest], Place]
    #: shared: other processes see it. durable: what was acknowledged outlives its server, or
    #: where there is none, the process. remote: a server that is reached over one port.
    powers: frozenset[str]


def _kind(make: Callable[[pytest.FixtureRequest], Place], *powers: str) -> Kind:
    return Kind(make, frozenset(powers))


KINDS = {
    "memory": _kind(memory),
    "file": _kind(file, "shared", "durable"),
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
