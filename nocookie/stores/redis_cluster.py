"""Which server of a cluster a command goes to.

Which server has a slot is asked when it is not known, and again when the answer turns out to be
old: a node says MOVED, or cannot be reached.
"""

from __future__ import annotations

import binascii
import random
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from nocookie.errors import StoreError, StoreTimeout
from nocookie.forks import ProcessLocal
from nocookie.stores.redis_connection import (
    Command,
    ErrorReply,
    Node,
    Undone,
    UndoneError,
    timeout,
)
from nocookie.stores.redis_url import Settings
from nocookie.stores.timed import Address

__all__ = ["Cluster", "slot_of"]

#: A cluster has so many slots.
SLOTS: Final = 16384
#: How often one call follows the cluster's directions to another node. Two are normal while
#: slots move; more mean that the nodes do not agree.
HOPS: Final = 5


def slot_of(key: bytes) -> int:
    """The slot of the part in the first braces, if there is something in them; of it all else."""
    _, brace, rest = key.partition(b"{")
    part, closed, _ = rest.partition(b"}")
    return binascii.crc_hqx(part if brace and closed and part else key, 0) % SLOTS


class Cluster:
    """Several servers, each with the keys of some slots."""

    def __init__(self, seeds: Sequence[Address], settings: Settings) -> None:
        self._settings = settings
        self._seeds = {address: Node(address, settings) for address in seeds}
        #: Every node that we know of, replicas and seeds among them.
        self._nodes = dict(self._seeds)
        self._slots: list[Node | None] = [None] * SLOTS
        self._doubtful = True
        self._failed: Node | None = None
        self._asking = ProcessLocal(threading.Lock)

    def call(self, key: bytes, command: Command, until: float, again: bool) -> Any:
        slot = slot_of(key)
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
            there = self._directed(reply, node)
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

    def _directed(self, reply: ErrorReply, asked: Node) -> Node:
        """The node that a MOVED or ASK names."""
        try:
            _, _, endpoint = reply.text.split(" ")
            host, _, port = endpoint.rpartition(":")
            return self._at(host, int(port), asked)
        except ValueError:
            raise UndoneError("the redis store: directions that cannot be read") from None

    def _at(self, host: str, port: int, asked: Node) -> Node:
        """Without a host it is the one of the node that was asked. Raises ValueError for a port
        that is none."""
        if not 0 <= port < 65536:
            raise ValueError("no port")
        address = host or asked.address[0], port
        return self._nodes.setdefault(address, Node(address, self._settings))

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
            raise timeout(sent=False)
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
                    if isinstance(ranges, list) and ranges:
                        self._take_map(ranges, node)
                        return
                except StoreError:
                    continue
                except (ValueError, TypeError, AttributeError):
                    continue  # that was no map
        finally:
            asking.release()
        if until - time.monotonic() < 0.01:
            raise timeout(sent=False)
        raise UndoneError("the redis store: no node of the cluster answers")

    def _take_map(self, ranges: list[Any], asked: Node) -> None:
        slots: list[Node | None] = [None] * SLOTS
        nodes = dict(self._seeds)
        for begin, end, *servers in ranges:
            if not 0 <= begin <= end < SLOTS:
                raise ValueError("no range of slots")
            for number, (host, port, *_) in enumerate(servers):
                name = (host or b"").decode()
                node = self._at("" if name == "?" else name, int(port), asked)
                nodes[node.address] = node
                if number == 0:
                    slots[begin : end + 1] = [node] * (end + 1 - begin)
        gone = [node for address, node in self._nodes.items() if address not in nodes]
        self._slots, self._nodes, self._doubtful = slots, nodes, False
        for node in gone:
            node.pool.here().close()
