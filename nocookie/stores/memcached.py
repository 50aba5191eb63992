"""Sessions in memcached: shared by many hosts, fast, and gone when memcached needs the room.

A record is one item, and memcached changes an item only as a whole. So a save reads the record,
applies the delta, and puts it back with `cas`, which memcached refuses if the item was changed in
between; then it begins again, until the deadline.

The rules of this file:

1. Every write has a condition: `add`, `cas` or `replace`, never `set`. What memcached refuses,
   also because it is too large or there is no memory, leaves the item as it was; a `set` that is
   refused deletes it.
2. A key has one server, whether that is up or not. Were another asked instead, sessions would
   end twice, live twice, or lose a save. This is why pymemcache's HashClient is not used.

How a command gets to its server and back is in `memcached_wire`.

When a record ends, our clock decides, on read. memcached drops the item a minute later.
"""

from __future__ import annotations

import math
import os
import random
import re
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from nocookie.errors import ConfigError, SessionGone, StoreError, StoreTimeout
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Record,
    VersionChanged,
    merge,
    new_record,
    pack,
    unpack,
)
from nocookie.stores.memcached_wire import Connection, Server, addresses

__all__ = ["MemcachedStore"]

#: What an item begins with: what it is, and three times, the version, and the seal's length. Then
#: come the seal and the fields. Another kind, say of a later version, is kept and not read.
HEAD: Final = struct.Struct(">BdddQH")
RECORD: Final = 1
#: A rotation is under way here, from this key or to it, and this one does not count.
RESERVED: Final = 2

#: Seconds that memcached keeps an item after its end: as much as the clocks of two hosts may
#: differ by, and memcached's own, which ticks in seconds, be late.
GRACE: Final = 60
#: memcached takes more seconds than these for a date.
MONTH: Final = 30 * 86400
#: memcached takes a date after this one for one that is over: it counts in 32 bits.
LAST_DATE: Final = 2**31 - 1
#: memcached allows so many bytes for a key, and 1024 connections, which 32 processes then share.
KEY_SIZE: Final = 250
POOL_SIZE: Final = 32

#: Seconds, at most, from one try to the next: about the time that a try takes, and then double,
#: up to twenty times that.
FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.02


class MemcachedStore:
    """Sessions in one or several memcached servers.

    *url* is `host:port`, or `unix:/path`; several with `;` between them, in the same order or
    not, but the same for every process: each key belongs to one of them, and while that server
    is down its sessions are errors. *deadline* is in seconds, for one call; only the resolver,
    where *url* has a name that it must look up, takes its own time.

    An item that memcached evicts, and all of them when it restarts, are sessions that have ended.

    A load is one trip, and so is a `save` or `touch` after a `load` by the same thread that
    nobody came between; otherwise they are two, and two more for each time that somebody did. A
    rotation is five. It is not one step: the new key is reserved, with all of its data; the old
    one is ended, if it has not changed, and its place kept; the new one counts; the old place is
    cleared. If that is empty by then, somebody has destroyed the session meanwhile, and the new
    one is taken away before anybody hears of its key. A crash after the second leaves none or
    one that nobody knows, and no crash leaves two.
    """

    shared = True

    def __init__(
        self,
        *,
        url: str,
        key_prefix: str = "nocookie:",
        pool_size: int = POOL_SIZE,
        deadline: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            from pymemcache import Client
        except ImportError as error:
            raise ConfigError(
                "type = 'memcached' needs pymemcache: pip install nocookie[memcached]"
            ) from error
        if not re.fullmatch(r"[!-~]*", key_prefix) or len(key_prefix) + 64 > KEY_SIZE:
            raise ConfigError(
                "key_prefix for memcached is ASCII without spaces or control characters, "
                f"at most {KEY_SIZE - 64} of them"
            )
        self._servers = [Server(Client, address, pool_size) for address in addresses(url)]
        self._prefix = key_prefix.encode()
        self._deadline = deadline
        self._clock = clock
        self._last = threading.local()
        _living.add(self)

    # -- the contract ---------------------------------------------------------------------------

    def load(self, key: str) -> Record | Missing:
        now, until = self._clock(), time.monotonic() + self._deadline
        self._last.item = None
        server = self._server(key)
        memcached = server.take(until)
        try:
            item, token = memcached.gets(self._name(key))
        finally:
            server.give_back(memcached)
        found = _read(item)
        if isinstance(found, Missing):
            return found
        if found.expires <= now:
            return Missing.EXPIRED
        self._last.item = _Loaded(key, found, token, memcached.number)
        return found

    def create(self, key: str, record: Record, ttl: float) -> None:
        now, until = self._clock(), time.monotonic() + self._deadline
        name = self._name(key)
        item = _item(record._replace(accessed=now, expires=now + ttl, version=1))
        with self._server(key).connection(until) as memcached:
            for _ in _tries(until):
                if memcached.add(name, item, _exptime(ttl)):
                    return
                held, token = memcached.gets(name)
                if held is None:
                    continue  # it went away in between
                found = _read(held)
                if isinstance(found, Missing) or found.expires > now:
                    raise KeyTaken
                if memcached.cas(name, item, token, _exptime(ttl)):
                    return

    def save(
        self,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None = None,
        seal: bytes | None = None,
    ) -> None:
        def saved(record: Record) -> Record:
            fields, created, accessed, expires, version, its_seal = record
            if expect is not None and expect != version:
                raise VersionChanged
            fields = merge(fields, delta)
            return new_record((fields, created, accessed, expires, version + 1, its_seal))

        self._change(key, saved, ttl, seal)

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        self._change(key, lambda record: record, ttl, seal)

    def rotate(self, old: str, new: str, delta: Delta, seal: bytes, ttl: float) -> None:
        until = time.monotonic() + self._deadline
        # A quarter of the time is kept for what may have to be done then.
        soon = until - self._deadline / 4
        self._move(old, new, delta, seal, ttl, soon)
        try:
            if not self._delete(old, soon):
                raise SessionGone("the session was destroyed while it moved")
        except (SessionGone, StoreError):
            self._delete(new, until)
            raise

    def destroy(self, key: str) -> None:
        self._delete(key, time.monotonic() + self._deadline)

    def close(self) -> None:
        self._last = threading.local()
        for server in self._servers:
            server.pool.close()

    # -- how --------------------------------------------------------------------------------------

    def _change(
        self, key: str, change: Callable[[Record], Record], ttl: float, seal: bytes | None
    ) -> None:
        """Put what *change* makes of the record as it is in its place, and renew it."""
        now, until = self._clock(), time.monotonic() + self._deadline
        name = self._name(key)

        def put(found: Record | Missing, token: bytes) -> bool:
            fields, created, _, _, version, its_seal = change(_alive(found, now, seal))
            item = _item(new_record((fields, created, now, now + ttl, version, its_seal)))
            return memcached.cas(name, item, token, _exptime(ttl))

        server = self._server(key)
        memcached = server.take(until)
        try:
            loaded, self._last.item = getattr(self._last, "item", None), None
            # What this thread loaded last may be what is there; if it is not, `cas` refuses. A
            # server that was restarted gives the same tokens again, so the token counts only on
            # a connection that is not newer, and so leads to the server that gave it.
            if loaded and loaded.key == key and memcached.number <= loaded.connection:
                try:
                    if put(loaded.record, loaded.token):
                        return
                except (SessionGone, VersionChanged):
                    pass  # of what was loaded, which says nothing about what is there
            for _ in _tries(until):
                item, token = memcached.gets(name)
                if put(_read(item), token):
                    return
        finally:
            server.give_back(memcached)

    def _move(
        self, old: str, new: str, delta: Delta, seal: bytes, ttl: float, until: float
    ) -> None:
        """Make the new key count, and put what is no session under the old one."""
        now = self._clock()
        old_name, new_name = self._name(old), self._name(new)
        # What lasts longer than this call. One that is left over, nobody asks for.
        reserved_for = math.ceil(self._deadline) + GRACE
        reserve: Callable[..., bool]
        with self._connections(old, new, until) as (at_old, at_new):
            reserve = at_new.add
            for _ in _tries(until):
                item, token = at_old.gets(old_name)
                fields, created, _, _, version, _ = _alive(_read(item), now)
                moved = new_record(
                    (merge(fields, delta), created, now, now + ttl, version + 1, seal)
                )
                # With its data: if that is too large, or the server down, the old one lives on.
                if not reserve(new_name, _item(moved, RESERVED), reserved_for):
                    raise KeyTaken
                buried = _item(moved._replace(fields={}), RESERVED)
                if at_old.cas(old_name, buried, token, reserved_for):
                    break
                reserve = at_new.replace
            if not at_new.replace(new_name, _item(moved), _exptime(ttl)):
                raise SessionGone("the session was evicted")

    def _delete(self, key: str, until: float) -> bool:
        """Return whether there was anything."""
        with self._server(key).connection(until) as memcached:
            return memcached.delete(self._name(key))

    def _name(self, key: str) -> bytes:
        return self._prefix + key.encode()

    def _server(self, key: str) -> Server:
        """The server that a key belongs to: the one with the highest rank for it, so that with
        one server more or less, no key moves between the others."""
        if len(self._servers) == 1:
            return self._servers[0]
        return max(self._servers, key=lambda server: server.rank(key))

    @contextmanager
    def _connections(
        self, old: str, new: str, until: float
    ) -> Iterator[tuple[Connection, Connection]]:
        """A connection for each of two keys; the same one, if they belong to one server."""
        at_old, at_new = self._server(old), self._server(new)
        with ExitStack() as stack:
            # In the same order for all, who would else wait for one another.
            taken = {
                server: stack.enter_context(server.connection(until))
                for server in self._servers
                if server in (at_old, at_new)
            }
            yield taken[at_old], taken[at_new]

    def _forget_connections(self) -> None:
        for server in self._servers:
            server.pool.forget()


class _Loaded(NamedTuple):
    """What a thread loaded last."""

    key: str
    record: Record
    token: bytes
    #: The number of the connection that it came by.
    connection: int


# -- items ---------------------------------------------------------------------------------------


def _item(record: Record, kind: int = RECORD) -> bytes:
    fields, created, accessed, expires, version, seal = record
    head = HEAD.pack(kind, created, accessed, expires, version, len(seal))
    return b"".join((head, seal, pack(fields)))


def _read(item: bytes | None) -> Record | Missing:
    """Return the record, expired or not."""
    if item is None:
        return Missing.UNKNOWN
    try:
        kind, created, accessed, expires, version, seal_size = HEAD.unpack_from(item)
        if kind == RESERVED:
            return Missing.UNKNOWN
        if kind != RECORD or math.isnan(expires):
            return Missing.CORRUPTED
        fields_at = HEAD.size + seal_size
        fields = unpack(item[fields_at:])
    except (struct.error, ValueError):
        return Missing.CORRUPTED
    return new_record((fields, created, accessed, expires, version, item[HEAD.size : fields_at]))


def _alive(found: Record | Missing, now: float, seal: bytes | None = None) -> Record:
    if found is Missing.CORRUPTED:
        raise StoreError("memcached: the record cannot be read, left as it is")
    if isinstance(found, Missing) or found.expires <= now or seal not in (None, found.seal):
        raise SessionGone("the session has ended")
    return found


def _exptime(ttl: float) -> int:
    """When memcached drops an item that ends in *ttl* seconds; 0 is never."""
    if ttl == math.inf:
        return 0
    seconds = math.ceil(max(ttl, 0)) + GRACE
    if seconds > MONTH:
        seconds += int(time.time())  # memcached's clock is a real one, whatever ours is
    return seconds if seconds <= LAST_DATE else 0


def _tries(until: float) -> Iterator[None]:
    """Yield for a first try, and after a pause for another, until the time is over."""
    pause = FIRST_PAUSE
    while True:
        yield
        if time.monotonic() + pause > until:
            raise StoreTimeout("memcached: others kept changing the record")
        time.sleep(random.uniform(0, pause))  # noqa: S311 - only to spread out
        pause = min(2 * pause, LONGEST_PAUSE)


_living: weakref.WeakSet[MemcachedStore] = weakref.WeakSet()


def _after_fork() -> None:
    # The sockets are the parent's; closing them here, as they are collected, does not end them.
    for store in list(_living):
        store._forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
