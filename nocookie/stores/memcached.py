"""Sessions in memcached: shared by many hosts, fast, and gone when memcached needs the room.

A record is one item, and memcached changes an item only as a whole. So a save reads the record,
applies the delta, and puts it back with `cas`, which memcached refuses if the item was changed in
between; then it begins again, until the deadline.

The rules of this file:

1. Every write has a condition: `add`, `cas` or `replace`, never `set`. What memcached refuses,
   also because it is too large or there is no memory, leaves the item as it was; a `set` that is
   refused deletes it.
2. A key has one server, whether that is up or not. Were another asked instead, sessions would
   end twice, live twice, or lose a save.

How a command gets to its server is in `memcached_servers`, what it says there in `memcached_wire`.

When a record ends, our clock decides, on read. memcached drops the item a minute later.

A rotation that leaves a trail puts it in the place of the old record with one `cas`: so a reader
finds the one or the other. Then the new record is there, with all of its data, but does not count
yet. Whoever follows the trail waits for it, some milliseconds; it is either made to count, or has
been ended, or the rotation has died, and then the reader makes it count.
"""

from __future__ import annotations

import math
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from nocookie.errors import ConfigError, SessionGone, StoreError, StoreTimeout
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Moved,
    Record,
    Trail,
    VersionChanged,
    is_same,
    merge,
    new_record,
    pack,
    unpack,
)
from nocookie.stores.memcached_servers import Server, addresses
from nocookie.stores.memcached_wire import Connection
from nocookie.stores.retry import tries

__all__ = ["MemcachedStore"]

#: What an item begins with: what it is, and three times, the version, and the seal's length. Then
#: come the seal and the fields. Another kind, say of a later version, is kept and not read.
HEAD: Final = struct.Struct(">BdddQH")
RECORD: Final = 1
#: A rotation is under way here, from this key or to it, and this one does not count.
RESERVED: Final = 2
#: Nor does this one, yet: a trail leads here, and the rotation that left it is about to end. Before
#: the seal is the key that it comes from.
AWAITED: Final = 3
#: A trail, with its ticket in the place of the seal.
TRAIL: Final = 4
#: What was the record, until the one that it became counts. Before the seal is the key of that.
BURIED: Final = 5
#: That it does; for some seconds. The key of it is in the place of the seal.
DONE: Final = 6
#: How long a key is.
NAME: Final = 64

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

#: What is said of a try that came too late, and of the ones before it.
_BUSY: Final = "memcached: others kept changing the record"


class MemcachedStore:
    """Sessions in one or several memcached servers.

    *url* is `host:port`, or `unix:/path`; several with `;` between them, in the same order or
    not, but the same for every process: each key belongs to one of them, and while that server
    is down its sessions are errors. *deadline* is in seconds, for one call; only the resolver,
    where *url* has a name that it must look up, takes its own time.

    An item that memcached evicts, and all of them when it restarts, are sessions that have ended.

    A load is one trip, and so is a `save`, `touch` or `destroy` after a `load` by the same thread
    that nobody came between; otherwise they are two, and two more for each time that somebody
    did. A rotation is five. It is not one step: the new key is reserved, with all of its data; the
    old one is buried, with its own, if it has not changed; the new one counts; that is said in the
    old place for a minute. If that is empty by then, somebody has destroyed the session meanwhile,
    and the new one is taken away before anybody hears of its key. With a trail it is four: that
    takes the place of the old one, and who ends it ends what is reserved, too. What a lost answer
    or a crash leaves half done, the next reader takes back, or finishes; there are never two.
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
        if not re.fullmatch(r"[!-~]*", key_prefix) or len(key_prefix) + 64 > KEY_SIZE:
            raise ConfigError(
                "key_prefix for memcached is ASCII without spaces or control characters, "
                f"at most {KEY_SIZE - 64} of them"
            )
        self._servers = [Server(address, pool_size) for address in addresses(url)]
        self._prefix = key_prefix.encode()
        self._deadline = deadline
        self._clock = clock
        self._last = threading.local()

    # -- the contract ---------------------------------------------------------------------------

    def load(self, key: str) -> Record | Missing | Moved:
        now, until = self._clock(), time.monotonic() + self._deadline
        self._last.item = None
        server = self._server(key)
        memcached = server.take(until)
        try:
            item, token = memcached.gets(self._name(key))
        finally:
            server.give_back(memcached)
        found = _read(item)
        if type(found) is not Record:
            if isinstance(found, _OnItsWay):
                found = self._wait_for(key, until - self._deadline / 4)
            return _answer(found, now)
        if found.expires <= now:
            return Missing.EXPIRED
        self._last.item = _Loaded(key, found, token, memcached.number)
        return found

    def create(
        self,
        key: str,
        record: Record,
        ttl: float,
        owner: bytes | None = None,
        instead_of: Record | Missing | None = None,
    ) -> None:
        now, until = self._clock(), time.monotonic() + self._deadline
        name = self._name(key)
        record = record._replace(accessed=now, expires=now + ttl, version=1)
        item = _item(record)
        with self._server(key).connection(until) as memcached:
            if instead_of is not None:
                there, token = memcached.gets(name)
                seen = _read(there)
                if isinstance(seen, Record) and isinstance(instead_of, Record):
                    item = _item(record._replace(version=seen.version + 1))
                    is_there = is_same(seen, instead_of)
                else:
                    is_there = there is not None and seen is instead_of
                if not is_there or not memcached.cas(name, item, token, _exptime(ttl)):
                    raise VersionChanged
                return
            for _ in tries(until):
                if memcached.add(name, item, _exptime(ttl)):
                    return
                held, token = memcached.gets(name)
                if held is None:
                    continue  # it went away in between
                found = _read(held)
                if not isinstance(found, Record | _Trail) or found.expires > now:
                    raise KeyTaken
                if memcached.cas(name, item, token, _exptime(ttl)):
                    return
        raise StoreTimeout(_BUSY)

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

    def rotate(
        self,
        old: str,
        new: str,
        delta: Delta,
        seal: bytes,
        ttl: float,
        owner: bytes | None = None,
        trail: Trail | None = None,
    ) -> None:
        until = time.monotonic() + self._deadline
        # A quarter of the time is kept for what may have to be done then.
        soon = until - self._deadline / 4
        anew = owner is not None
        if trail is not None:
            self._move(old, new, delta, seal, ttl, anew, trail, soon)
            return
        try:
            self._move(old, new, delta, seal, ttl, anew, None, soon)
        except SessionGone:
            self._take_back(old, until, new)
            raise
        except StoreError:
            if not self._take_back(old, until, new) or not self._is_done(old, new, until):
                raise

    def destroy(self, key: str, expired: bool = False) -> Moved | None:
        now, until = self._clock(), time.monotonic() + self._deadline
        name = self._name(key)
        with self._server(key).connection(until) as memcached:
            # On the condition that it is what was seen: a record may become a trail in between,
            # and whoever ends a trail has to know.
            loaded = self._loaded_last(key, memcached)
            if loaded and not expired and memcached.delete_if(name, loaded.token):
                return None
            for _ in tries(until):
                item, token = memcached.gets(name)
                if item is None:
                    return None
                found = _read(item)
                if expired and not (isinstance(found, Record) and found.expires <= now):
                    return None
                if memcached.delete_if(name, token):
                    was = _answer(found, now)
                    return was if isinstance(was, Moved) else None
        raise StoreTimeout(_BUSY)

    def close(self) -> None:
        self._last = threading.local()
        for server in self._servers:
            server.pool.here().close()

    # -- how --------------------------------------------------------------------------------------

    def _change(
        self, key: str, change: Callable[[Record], Record], ttl: float, seal: bytes | None
    ) -> None:
        """Put what *change* makes of the record as it is in its place, and renew it."""
        now, until = self._clock(), time.monotonic() + self._deadline
        name = self._name(key)

        def put(found: _Found, token: bytes) -> bool:
            fields, created, _, _, version, its_seal = change(_alive(found, now, seal))
            item = _item(new_record((fields, created, now, now + ttl, version, its_seal)))
            return memcached.cas(name, item, token, _exptime(ttl))

        server = self._server(key)
        memcached = server.take(until)
        try:
            loaded = self._loaded_last(key, memcached)
            if loaded:
                try:
                    if put(loaded.record, loaded.token):
                        return
                except (SessionGone, VersionChanged):
                    pass  # of what was loaded, which says nothing about what is there
            for _ in tries(until):
                item, token = memcached.gets(name)
                if put(_read(item), token):
                    return
            raise StoreTimeout(_BUSY)
        finally:
            server.give_back(memcached)

    def _loaded_last(self, key: str, memcached: Connection) -> _Loaded | None:
        """What this thread loaded last may be what is there; if it is not, memcached refuses its
        token. A server that was restarted gives the same tokens again, so one counts only on a
        connection that is not newer, and so leads to the server that gave it."""
        loaded: _Loaded | None = getattr(self._last, "item", None)
        self._last.item = None
        if loaded and loaded.key == key and memcached.number <= loaded.connection:
            return loaded
        return None

    def _wait_for(self, key: str, until: float) -> _Found:
        """Return what is there once the rotation from or to *key* has ended. One that does not end
        has died, or lost an answer: then it is taken back, or if it has left its trail, finished.
        """
        for _ in tries(until):
            found = self._look(key, until)
            if not isinstance(found, _OnItsWay):
                return found
        until += self._deadline / 4
        found = self._look(key, until)
        if isinstance(found, _OnItsWay):
            if found.kind == BURIED:
                self._take_back(key, until)
            else:
                self._finish(key, found, until)
            found = self._look(key, until)
        if isinstance(found, _OnItsWay):
            raise StoreTimeout("memcached: a rotation does not come to its end")
        return found

    def _look(self, key: str, until: float) -> _Found:
        with self._server(key).connection(until) as memcached:
            return _read(memcached.gets(self._name(key))[0])

    def _take_back(self, old: str, until: float, new: str | None = None) -> bool:
        """Have what is buried under a key count again, if there is something, and if the rotation
        was to the key *new*; return False if memcached cannot be asked."""
        name = self._name(old)
        try:
            with self._server(old).connection(until) as memcached:
                item, token = memcached.gets(name)
                buried = _read(item)
                if item is None or not isinstance(buried, _OnItsWay) or buried.kind != BURIED:
                    return True
                if new not in (None, buried.other):
                    return True
                exptime = _exptime(buried.record.expires - self._clock())
                # First it is claimed: no step of the rotation finds it as it was any more. Then
                # the new one goes, and nobody makes it again.
                token = memcached.put(name, item, exptime, token)
                if not token:
                    return True
            self._delete(buried.other, until)
            with self._server(old).connection(until) as memcached:
                memcached.put(name, _item(buried.record), exptime, token)
        except StoreError:
            return False
        return True

    def _is_done(self, old: str, new: str, until: float) -> bool:
        """Whether the last step of a rotation was done, though its answer was lost. If somebody
        has ended the session meanwhile, see to it that it has ended."""
        found = self._look(old, until)
        if isinstance(found, _Trail):
            return found.ticket == new.encode()
        if found is Missing.UNKNOWN:
            self._delete(new, until)
        return False

    def _finish(self, new: str, awaited: _OnItsWay, until: float) -> None:
        """Have a record count that a trail leads to."""
        if not isinstance(self._look(awaited.other, until), _Trail):
            return
        with self._server(new).connection(until) as memcached:
            item, token = memcached.gets(self._name(new))
            if _read(item) == awaited:
                exptime = _exptime(awaited.record.expires - self._clock())
                memcached.put(self._name(new), _item(awaited.record), exptime, token)

    def _move(
        self,
        old: str,
        new: str,
        delta: Delta,
        seal: bytes,
        ttl: float,
        anew: bool,
        trail: Trail | None,
        until: float,
    ) -> None:
        """Make the new key count, and put what is no session under the old one. Each step has the
        condition that what it changes is what the one before has left: so a late one does nothing.
        """
        now = self._clock()
        old_name, new_name = self._name(old), self._name(new)
        # What lasts longer than this call.
        soon_over = math.ceil(self._deadline) + GRACE
        token = b""
        with self._connections(old, new, until) as (at_old, at_new):
            for _ in tries(until):
                item, seen = at_old.gets(old_name)
                try:
                    there = _alive(_read(item), now)
                except SessionGone:
                    if token:
                        at_new.delete_if(new_name, token)
                    raise
                fields, created, _, _, version, _ = there
                began = now if anew else created
                moved = new_record((merge(fields, delta), began, now, now + ttl, version + 1, seal))
                if trail is None:
                    reserved, lies = _item(moved, RESERVED), soon_over
                    left, left_for = _item(there, BURIED, new), _exptime(there.expires - now)
                else:
                    reserved, lies = _item(moved, AWAITED, old), _exptime(ttl)
                    ends = now + trail.ttl
                    left = _item(new_record(({}, now, now, ends, 0, trail.ticket)), TRAIL)
                    left_for = _exptime(trail.ttl)
                # With its data: if that is too large, or the server down, the old one lives on.
                token = at_new.put(new_name, reserved, lies, token)
                if not token:
                    raise KeyTaken
                place = at_old.put(old_name, left, left_for, seen)
                if place:
                    break
            else:
                raise StoreTimeout(_BUSY)
            token = at_new.put(new_name, _item(moved), _exptime(ttl), token)
            if not token:
                raise SessionGone("the session was evicted, or destroyed while it moved")
            if trail is None:
                done = new_record(({}, now, now, now, 0, new.encode()))
                if not at_old.put(old_name, _item(done, DONE), soon_over, place):
                    at_new.delete_if(new_name, token)
                    raise SessionGone("the session was destroyed while it moved")

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


class _Loaded(NamedTuple):
    """What a thread loaded last."""

    key: str
    record: Record
    token: bytes
    #: The number of the connection that it came by.
    connection: int


# -- items ---------------------------------------------------------------------------------------


def _item(record: Record, kind: int = RECORD, other: str = "") -> bytes:
    fields, created, accessed, expires, version, seal = record
    seal = other.encode() + seal
    head = HEAD.pack(kind, created, accessed, expires, version, len(seal))
    return b"".join((head, seal, pack(fields)))


class _Trail(NamedTuple):
    ticket: bytes
    expires: float


class _OnItsWay(NamedTuple):
    """A rotation is about to end: the record does not count any more, or not yet."""

    kind: int
    record: Record
    #: The key at the other end.
    other: str


_Found = Record | Missing | _Trail | _OnItsWay


def _read(item: bytes | None) -> _Found:
    """Return what an item is, expired or not."""
    if item is None:
        return Missing.UNKNOWN
    try:
        kind, created, accessed, expires, version, seal_size = HEAD.unpack_from(item)
        fields_at = HEAD.size + seal_size
        seal = item[HEAD.size : fields_at]
        if kind == RESERVED:
            return Missing.UNKNOWN
        if kind in (TRAIL, DONE):
            return _Trail(seal, expires if kind == TRAIL else -math.inf)
        if kind not in (RECORD, AWAITED, BURIED) or math.isnan(expires):
            return Missing.CORRUPTED
        fields = unpack(item[fields_at:])
        if kind == RECORD:
            return new_record((fields, created, accessed, expires, version, seal))
        record = new_record((fields, created, accessed, expires, version, seal[NAME:]))
        return _OnItsWay(kind, record, seal[:NAME].decode())
    except (struct.error, ValueError):
        return Missing.CORRUPTED


def _answer(found: _Found, now: float) -> Record | Missing | Moved:
    """What a load says of it."""
    if isinstance(found, Record):
        return found if found.expires > now else Missing.EXPIRED
    if isinstance(found, _Trail) and found.expires > now:
        return Moved(found.ticket)
    return found if isinstance(found, Missing) else Missing.UNKNOWN


def _alive(found: _Found, now: float, seal: bytes | None = None) -> Record:
    if found is Missing.CORRUPTED:
        raise StoreError("memcached: the record cannot be read, left as it is")
    if not isinstance(found, Record) or found.expires <= now or seal not in (None, found.seal):
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
