"""Commands to Redis or Valkey, one server or a cluster, each within a deadline.

Why no client of others is used is in docs/decisions/0003-drivers.md; what this keeps is:

1. A call ends at its deadline, the connecting included. Every wait on a socket ends there.
2. A command that may have reached a server is sent again only if the caller says that twice is
   as good as once (`again`). One that surely was not executed raises an `Undone`.
3. A connection is used by one thread at a time, and only by the process that opened it. One on
   which a call did not come to its end is closed: a late reply is never read as that to the next.
4. What is raised is a `StoreError` and carries no data. An error that a server replies is
   returned, as an `ErrorReply`: such a command was not executed.
"""

from __future__ import annotations

from typing import Any, Protocol

from nocookie.errors import ConfigError
from nocookie.stores.redis_cluster import Cluster
from nocookie.stores.redis_connection import Command, Node
from nocookie.stores.redis_url import read

__all__ = ["OneServer", "Wire", "connect"]


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
        import hiredis  # noqa: F401 - that it is here
    except ImportError as error:
        raise ConfigError(
            "type = 'redis' needs the package hiredis: pip install nocookie[redis]"
        ) from error
    location = read(url)
    if location.cluster:
        return Cluster(location.addresses, location.settings)
    return OneServer(Node(location.addresses[0], location.settings))


class OneServer:
    def __init__(self, node: Node) -> None:
        self._node = node

    def call(self, key: bytes, command: Command, until: float, again: bool) -> Any:
        return self._node.ask((command,), until, again)[0]

    def primaries(self, until: float) -> list[Node]:
        return [self._node]

    def close(self) -> None:
        self._node.pool.here().close()
