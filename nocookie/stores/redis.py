"""Sessions in Redis or Valkey: one server or a cluster, for any number of hosts.

A session is one hash. Its fields are those of the session, each with a dot before its name, and
the field `m`: the version of this format, when the session began, its last use, its end, the
version of the record, and the seal. With an owner there is an `o` behind the version of the format,
and a field `o`: until when the index below is sure to have it, and the owner. Times are written as
Python writes them, and come back as they were; Lua would round them. A trail is a hash with the one
field `f`: its end, and the ticket.

The rules of this file:

1. A write is one script. What it depends on (the record lives, has this seal, this version) and
   the write itself are one step of the server.
2. A script touches one key, so that a cluster can run it.
3. Nobody but this store decides when a session ends: `m` says it, by the clocks of the
   application. The server's own expiry comes later, by GRACE, and only frees the space.
4. A field `m` that is not there or cannot be read, or another type of value under a key, is a
   corrupted record, or one of a later version: never written, never replaced, only destroyed.

A rotation cannot be one step then. The old record is buried first: `m` becomes `t`, with the new
key beside it, and from that moment nobody can write to it. Then the new record is created. Then
the buried one is removed, and this decides: only if it was still there has the rotation happened.
If it was not, somebody has destroyed the session meanwhile, and the new record is taken away
before anybody hears of its key. So a logout ends the session whenever it comes. For some seconds
`d` says in its place that it was removed for this new key.

A lost answer loses nothing: each step can be asked for again, and if none answers, the rotation is
taken back. First the buried record is claimed, so that no late step finds it any more; then the new
key is blocked, so that no late step creates a record there; then the old one is dug out. If this
process dies, or no server answers, the record lies buried, with all of its data, until somebody
reads it: who reads what is buried waits, some milliseconds, until it is removed, a trail, or dug
out, and if that takes too long takes the rotation back himself. There are never two.

A rotation that leaves a trail turns the buried record into it, in the third step and on the same
condition.

The records of an owner are found by an index, under a key of its own and so mostly on another
server of a cluster. No step has both, so an entry comes first, and says only where to look:
whether there is a living record of this owner under the key, `o` and `m` say there. A rotation
enters the new key before it buries the old one. So whoever looks at the keys in the order in which
they were entered, and at those that came meanwhile, meets each record, wherever it is moving:

* before the burial, it is under the old key;
* then it is buried there, with its `o`. Who ends it takes that away, so the third step fails;
* then it is under the new key, which was entered later than the old one.

An entry without a record is dropped when it is met, if it is older than a rotation can take, and
its record not about to come. An index goes when none of its records can live any more. `o` says
how far that is; whoever renews a record beyond it has the index reach on.
"""

from __future__ import annotations

import enum
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from nocookie.errors import SessionGone, StoreError, StoreTimeout
from nocookie.stores import redis_scripts as scripts
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Moved,
    Record,
    Trail,
    VersionChanged,
    merge,
    new_record,
)
from nocookie.stores.redis_connection import ErrorReply, Undone, UndoneError
from nocookie.stores.redis_scripts import FOR_EVER, GRACE, TOMB_TIME, Script
from nocookie.stores.redis_wire import connect
from nocookie.stores.retry import tries

__all__ = ["RedisStore"]

#: How many keys one step of a listing looks at.
BATCH: Final = 500

#: What `CREATE` is told where twice is as good as once.
AGAIN: Final = b"r"
#: What `LOAD` is told where it is not to renew.
_NO_TOUCH: Final = (b"", b"", b"", b"")

FORMAT: Final = b"1"
#: That of a record which has an owner: so the others are not asked for one.
OWNED: Final = b"1o"
META: Final = b"m"
OWNER: Final = b"o"
TOMB: Final = b"t"
DONE: Final = b"d"
BLOCKED: Final = b"b"
#: What is before the new key in `t`, once nobody but who takes the rotation back may go on with it.
CLAIMED: Final = "!"
TRAIL: Final = b"f"
INDEX_DUE: Final = b"i"
#: Names of fields of a session begin with a dot, all of the above are greater.
OURS: Final = b"/"

_CREATE: Final = Script(scripts.CREATE)
_SAVE: Final = Script(scripts.SAVE)
_TOUCH: Final = Script(scripts.TOUCH)
_LOAD: Final = Script(scripts.LOAD)
_BURY: Final = Script(scripts.BURY)
_DIG_OUT: Final = Script(scripts.DIG_OUT)
_REMOVE: Final = Script(scripts.REMOVE)
_CLAIM: Final = Script(scripts.CLAIM)
_BLOCK: Final = Script(scripts.BLOCK)
_LEAVE: Final = Script(scripts.LEAVE)
_DESTROY: Final = Script(scripts.DESTROY)
_END: Final = Script(scripts.END)
_EXTEND: Final = Script(scripts.EXTEND)
_ADD: Final = Script(scripts.ADD)
_PRUNE: Final = Script(scripts.PRUNE)

#: What may come back from each; the parts of a list are bytes.
_REPLIES: Final[Mapping[Script, frozenset[type]]] = {
    **dict.fromkeys((_CREATE, _SAVE, _TOUCH, _DIG_OUT, _REMOVE, _LEAVE), frozenset({int})),
    **dict.fromkeys((_EXTEND, _PRUNE, _CLAIM, _BLOCK), frozenset({int})),
    **dict.fromkeys((_LOAD, _ADD), frozenset({list})),
    # Where the server has lost a part of a record, `o` is nothing.
    _BURY: frozenset({int, bytes, list, type(None)}),
    _DESTROY: frozenset({bytes}),
    _END: frozenset({int, bytes}),
}
_COMMANDS: Final[Mapping[bytes, frozenset[type]]] = {
    **dict.fromkeys((b"UNLINK", b"ZREM"), frozenset({int})),
    b"HGET": frozenset({bytes, type(None)}),
    b"HMGET": frozenset({list}),
    b"ZRANGE": frozenset({list}),
}


class RedisStore:
    """Sessions in the Redis or Valkey at *url*, under keys that begin with *key_prefix*.

    *url* is `redis://`, `rediss://` (TLS), `unix://`, or for a cluster `redis+cluster://` or
    `rediss+cluster://` with one or several `host:port`. *deadline* is in seconds, for one call.
    No connection is made before the first call.
    """

    shared = True

    def __init__(
        self,
        *,
        url: str,
        key_prefix: str = "nocookie:",
        deadline: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._wire = connect(url)
        self._prefix = key_prefix.encode()
        self._deadline = deadline
        self._clock = clock

    # -- the contract ---------------------------------------------------------------------------

    def load(self, key: str) -> Record | Missing | Moved:
        now, until = self._clock(), time.monotonic() + self._deadline
        reply = self._run(_LOAD, key, b"%a" % now, *_NO_TOUCH, again=True, until=until)
        found = _read(reply, now)
        return self._wait_for(key, until) if found is _Moving.MOVING else found

    def create(
        self,
        key: str,
        record: Record,
        ttl: float,
        owner: bytes | None = None,
        instead_of: Record | Missing | None = None,
    ) -> None:
        until = self._until()
        fields, created, *_, seal = record
        version, there = 1, b""
        if isinstance(instead_of, Record):
            version = instead_of.version + 1
            there = b"v%d %b" % (instead_of.version, instead_of.seal)
        elif instead_of is not None:
            there = self._corrupted(key, until)
        entry = b"" if owner is None else self._enter(owner, key, ttl, until)
        self._create(key, fields, created, version, seal, ttl, entry, until, there)

    def save(
        self,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None = None,
        seal: bytes | None = None,
    ) -> None:
        changes, deleted, cleared = delta
        names = () if cleared else deleted
        until = time.monotonic() + self._deadline
        done = self._run(
            _SAVE,
            key,
            b"%a" % self._clock(),
            b"%a" % ttl,
            b"" if expect is None else b"%d" % expect,
            b"" if seal is None else b"=" + seal,
            b"1" if cleared else b"0",
            b"%d" % len(names),
            *map(_field, names),
            *_pairs(changes),
            until=until,
        )
        if done == -1:
            raise VersionChanged
        if done == 2:
            self._extend(key, ttl, until)
        elif done != 1:
            raise SessionGone("the session has ended")

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        until = time.monotonic() + self._deadline
        times = b"%a" % self._clock(), b"%a" % ttl
        there = b"" if seal is None else b"=" + seal
        done = self._run(_TOUCH, key, *times, there, again=True, until=until)
        if done == 2:
            self._extend(key, ttl, until)
        elif done != 1:
            raise SessionGone("the session has ended")

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
        if old == new:
            raise KeyTaken
        until = self._until()
        # A quarter of the time is kept for what may have to be done then.
        soon = until - self._deadline / 4
        now = self._clock()
        entry = b"" if owner is None else self._enter(owner, new, ttl, soon)
        buried = self._bury(old, new, now, entry, until)
        if isinstance(buried, bytes):  # it has an owner
            entry = self._enter(_owner(buried), new, ttl, soon)
            buried = self._bury(old, new, now, entry, until)
        if not isinstance(buried, list):
            raise SessionGone("the session has ended")
        record = _read(buried, now)
        try:
            if not isinstance(record, Record):
                raise SessionGone("the session has ended")
            fields, version = merge(record.fields, delta), record.version + 1
            created = record.created if owner is None else now
            self._create(new, fields, created, version, seal, ttl, entry, soon, AGAIN)
        except (KeyTaken, SessionGone, Undone):
            self._dig_out(old, new, until)
            raise
        except StoreError:
            self._take_back(old, new, until)
            raise
        left = b"" if trail is None else b"%a %b" % (now + trail.ttl, trail.ticket)
        try:
            done = self._clear(old, new, left, trail, soon)
        except StoreError:
            if not self._take_back(old, new, until, left):
                return
            raise
        if done != 1:
            self._ask(b"UNLINK", new, until=until)
            raise SessionGone("the session was destroyed while it moved")

    def destroy(self, key: str, expired: bool = False) -> Moved | None:
        until = self._until()
        over = b"%a" % self._clock() if expired else b""
        trail = self._run(_DESTROY, key, b"", over, again=True, until=until)
        if not trail:
            return None
        # Only now: had the answer been lost, nobody would know any more where it led.
        self._run(_DESTROY, key, trail, b"", again=True, until=until)
        moved = _moved(trail, self._clock())
        return moved if isinstance(moved, Moved) else None

    def close(self) -> None:
        self._wire.close()

    # -- optional powers ------------------------------------------------------------------------

    def load_and_touch(
        self, key: str, idle: float, lifetime: float, after: float, further: float = 0.0
    ) -> Record | Missing | Moved:
        now, until = self._clock(), time.monotonic() + self._deadline
        ttl = idle + further
        times = b"%a" % now, b"%a" % idle, b"%a" % lifetime, b"%a" % after, b"%a" % ttl
        reply = self._run(_LOAD, key, *times, again=True, until=until)
        found = _read(reply, now)
        if found is _Moving.MOVING:
            return self._wait_for(key, until)
        if reply and reply[-2] == INDEX_DUE:
            try:
                self._extend(key, ttl, until)
            except StoreError:
                pass  # it reaches on for a while, and the next touch tries again
        return found

    def keys(self) -> Iterator[str]:
        # A scan names a key twice if the server reorders its table meanwhile.
        seen: set[bytes] = set()
        pattern = re.sub(rb"([*?\[\]^\\-])", rb"\\\1", self._prefix) + b"?" * 64
        for node in self._wire.primaries(self._until()):
            cursor = b"0"
            while True:
                scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % BATCH)
                cursor, found = _scanned(node.ask([scan], self._until(), again=True)[0])
                places = [place for place in dict.fromkeys(found) if place not in seen]
                seen.update(places)
                metas = [(b"HGET", place, META) for place in places]
                if metas:
                    replies = node.ask(metas, self._until(), again=True)
                    now = self._clock()
                    for place, meta in zip(places, replies, strict=True):
                        if _is_living(meta, now):
                            yield _text(place[len(self._prefix) :])
                if cursor == b"0":
                    break

    def owned(self, owner: bytes) -> list[str]:
        until = self._until()
        found = {key: self._look(owner, key, until) for key in self._entries(owner, until)}
        self._prune(owner, [key for key, lives in found.items() if lives is None], until)
        return [key for key, lives in found.items() if lives]

    def end_owned(self, owner: bytes, but: str | None = None) -> int:
        until, ended = self._until(), 0
        seen: set[str] = set()
        left_alone = set() if but is None else {but}
        # In the order in which they came, and then those that came meanwhile. A record moves only
        # to a key that is in the index already, behind its own: what is not met here any more is
        # met there.
        while left := [key for key in self._entries(owner, until) if key not in seen]:
            seen.update(left)
            for key in left:
                if key not in left_alone:
                    done, moving_to = self._end(owner, key, until)
                    ended += done
                    # Its rotation takes that back, and nobody hears of it: it counts no more.
                    left_alone.update(moving_to)
        self._prune(owner, [key for key in seen if key != but], until)
        return ended

    # -- inside ---------------------------------------------------------------------------------

    def _until(self) -> float:
        return time.monotonic() + self._deadline

    def _create(
        self,
        key: str,
        fields: Mapping[str, bytes],
        created: float,
        version: int,
        seal: bytes,
        ttl: float,
        entry: bytes,
        until: float,
        there: bytes = b"",
    ) -> None:
        meta = b"%a" % created, b"%d" % version, seal, entry, there
        times = b"%a" % self._clock(), b"%a" % ttl
        again = there == AGAIN
        if self._run(_CREATE, key, *times, *meta, *_pairs(fields), again=again, until=until) != 1:
            raise VersionChanged if there and not again else KeyTaken

    def _corrupted(self, key: str, until: float) -> bytes:
        """Return what tells the corrupted record under the key: its `m`, or that it has none."""
        now = self._clock()
        reply = self._run(_LOAD, key, b"%a" % now, *_NO_TOUCH, again=True, until=until)
        if _read(reply, now) is not Missing.CORRUPTED:
            raise VersionChanged
        found = dict(zip(reply[::2], reply[1::2], strict=True)) if reply else {}
        return b"m" + found[META] if META in found else b"x"

    def _wait_for(self, key: str, until: float) -> Record | Missing | Moved:
        """Return what is there once the rotation from *key* has ended. One that does not end has
        died, or lost an answer: then it is taken back."""
        # Not the whole deadline: what is asked in the end has to be answered.
        for _ in tries(until - self._deadline / 4):
            now = self._clock()
            times = b"%a" % now, *_NO_TOUCH
            found = _read(self._run(_LOAD, key, *times, again=True, until=until), now)
            if found is not _Moving.MOVING:
                return found
        tomb = (self._ask(b"HMGET", key, TOMB, until=until) or [None])[0]
        if tomb is not None:
            new = _text(tomb.partition(b" ")[0]).removeprefix(CLAIMED)
            self._take_back(key, new, until)
        now = self._clock()
        reply = self._run(_LOAD, key, b"%a" % now, *_NO_TOUCH, again=True, until=until)
        found = _read(reply, now)
        if found is _Moving.MOVING:
            raise StoreTimeout("the redis store: a rotation does not come to its end")
        return found

    def _bury(self, old: str, new: str, now: float, entry: bytes, until: float) -> Any:
        is_entered = b"1" if entry else b""
        soon = until - self._deadline / 4
        try:
            return self._run(_BURY, old, b"%a" % now, new.encode(), is_entered, until=soon)
        except StoreError:
            self._dig_out(old, new, until)
            raise

    def _clear(self, old: str, new: str, left: bytes, trail: Trail | None, until: float) -> Any:
        if trail is None:
            said_for = _milliseconds(2 * self._deadline)
            return self._run(_REMOVE, old, new.encode(), said_for, again=True, until=until)
        lies = _milliseconds(trail.ttl + GRACE)
        return self._run(_LEAVE, old, new.encode(), left, lies, again=True, until=until)

    def _dig_out(self, old: str, new: str, until: float) -> None:
        try:
            self._run(_DIG_OUT, old, b"%a" % self._clock(), new.encode(), until=until)
        except StoreError:
            pass  # what went wrong before is on its way to the caller

    def _take_back(self, old: str, new: str, until: float, left: bytes = b"") -> bool:
        """Have the session under its old key again, whichever step of its rotation was the last;
        return False if that was the last of all. What cannot be done now, the next reader does.
        """
        try:
            claimed = self._run(_CLAIM, old, new.encode(), left, again=True, until=until)
            if claimed == 1:
                # Also a `create` that is still on its way to its server must find no room.
                lies = _milliseconds(TOMB_TIME)
                self._run(_BLOCK, new, lies, again=True, until=until)
                self._dig_out(old, CLAIMED + new, until)
            elif claimed != 2:  # destroyed meanwhile
                self._ask(b"UNLINK", new, until=until)
        except StoreError:
            return True
        return bool(claimed != 2)

    def _run(
        self,
        script: Script,
        key: str,
        *arguments: bytes,
        again: bool = False,
        until: float,
    ) -> Any:
        """Return the reply; None if there is another type of value under the key."""
        place = self._prefix + key.encode()
        command = (b"EVALSHA", script.sha, b"1", place, *arguments)
        reply = self._wire.call(place, command, until, again)
        if type(reply) is ErrorReply and reply.word == "NOSCRIPT":
            command = (b"EVAL", script.text, *command[2:])
            reply = self._wire.call(place, command, until, again)
        return _checked(reply, _REPLIES[script])

    def _ask(self, command: bytes, key: str, *arguments: bytes, until: float) -> Any:
        place = self._prefix + key.encode()
        reply = self._wire.call(place, (command, place, *arguments), until, again=True)
        return _checked(reply, _COMMANDS[command])

    # -- owners

    def _enter(self, owner: bytes, key: str, ttl: float, until: float, anew: bool = True) -> bytes:
        """Have the key in the index, before there is a record under it; return its `o`."""
        reach = 2 * ttl
        lies = b"" if reach > FOR_EVER else _milliseconds(reach + 2 * GRACE)
        flag = b"1" if anew else b""
        some = self._run(_ADD, _index(owner), key.encode(), flag, lies, again=True, until=until)
        if some:
            keys = [_text(name) for name in some]
            self._prune(owner, [k for k in keys if self._look(owner, k, until) is None], until)
        return b"%a %b" % (self._clock() + reach, owner)

    def _end(self, owner: bytes, key: str, until: float) -> tuple[bool, list[str]]:
        """End the record if it is the owner's; return whether one lived, and the key that it was
        moving to, if it was."""
        now = b"%a" % self._clock()
        done = self._run(_END, key, now, owner, again=True, until=until)
        if not isinstance(done, bytes):
            return done == 1, []
        new = _text(done)
        self._ask(b"ZREM", _index(owner), done, until=until)
        self._run(_END, new, now, owner, again=True, until=until)
        return True, [new]

    def _extend(self, key: str, ttl: float, until: float) -> None:
        """Have the index of its owner last as long as a record that was renewed."""
        entry = self._ask(b"HGET", key, OWNER, until=until)
        if isinstance(entry, bytes):
            longer = self._enter(_owner(entry), key, ttl, until, anew=False)
            self._run(_EXTEND, key, entry, longer, again=True, until=until)

    def _entries(self, owner: bytes, until: float) -> list[str]:
        names = self._ask(b"ZRANGE", _index(owner), b"0", b"-1", until=until)
        return [_text(name) for name in names or ()]

    def _look(self, owner: bytes, key: str, until: float) -> bool | None:
        """Return whether the record lives; None if there is none of this owner, not even one that
        is moving: that may be dug out."""
        found = self._ask(b"HMGET", key, META, OWNER, until=until)
        if found is None:
            return None
        if len(found) != 2:
            raise _no_record()
        if found[1] is None or _owner(found[1]) != owner:
            return None
        return _is_living(found[0], self._clock())

    def _prune(self, owner: bytes, keys: list[str], until: float) -> None:
        if keys:
            names = [key.encode() for key in keys]
            self._run(_PRUNE, _index(owner), *names, again=True, until=until)


class _Moving(enum.Enum):
    MOVING = "a rotation is under way"


def _read(reply: list[bytes] | None, now: float) -> Record | Missing | Moved | _Moving:
    if reply is None:
        return Missing.CORRUPTED
    if type(reply) is not list:
        raise _no_record()
    meta, fields = None, {}
    names_and_values = iter(reply)
    try:
        for name in names_and_values:
            if name > OURS:
                value = next(names_and_values)
                if name == META:
                    meta = value
            else:
                fields[str(name, "utf-8", "surrogatepass")[1:]] = value = next(names_and_values)
            if value is None:
                raise TypeError
        if meta is None:
            return _read_other(reply, now)
        created, accessed, expires, version, seal = _parts(meta)
    except ValueError:
        return Missing.CORRUPTED
    except (TypeError, AttributeError, StopIteration):
        raise _no_record() from None
    if expires <= now:
        return Missing.EXPIRED
    return new_record((fields, created, accessed, expires, version, seal))


def _no_record() -> StoreError:
    """For what no script of ours returns, and no server of ours."""
    return StoreError("the redis store failed: what came is no record")


def _read_other(reply: list[bytes], now: float) -> Missing | Moved | _Moving:
    """What is no record, or none any more."""
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    if TRAIL in found:
        return _moved(found[TRAIL], now)
    if TOMB in found:
        return _Moving.MOVING
    if DONE in found or BLOCKED in found:
        return Missing.UNKNOWN
    return Missing.CORRUPTED if found else Missing.UNKNOWN


def _moved(trail: bytes, now: float) -> Missing | Moved:
    ends, _, ticket = trail.partition(b" ")
    try:
        return Moved(ticket) if float(ends) > now else Missing.UNKNOWN
    except ValueError:
        return Missing.CORRUPTED


def _index(owner: bytes) -> str:
    # Of an odd length, which a key of a session does not have.
    return "owners:" + owner.hex()


def _owner(entry: bytes) -> bytes:
    return entry.partition(b" ")[2]


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % math.ceil(seconds * 1000)


def _parts(meta: bytes) -> tuple[float, float, float, int, bytes]:
    format, created, accessed, expires, version, seal = meta.split(b" ", 5)
    parts = float(created), float(accessed), float(expires), int(version), seal
    if (format != FORMAT and format != OWNED) or math.isnan(parts[0] + parts[1] + parts[2]):
        raise ValueError
    return parts


def _is_living(meta: object, now: float) -> bool:
    try:
        return isinstance(meta, bytes) and _parts(meta)[2] > now
    except ValueError:
        return False


#: What lists consist of: HMGET has nothing for what is not there.
_PARTS: Final[frozenset[type]] = frozenset({bytes, type(None)})


def _checked(reply: Any, kinds: frozenset[type], parts: frozenset[type] = _PARTS) -> Any:
    """Return a reply of one of these types; None if there is another type of value under the
    key. Raises `StoreError` for anything else: a server of ours does not say it."""
    kind = type(reply)
    if kind in kinds:
        if kind is not list or parts.issuperset(map(type, reply)):
            return reply
    elif kind is ErrorReply:
        if "WRONGTYPE" in reply.text:  # scripts of old servers put words of their own in front
            return None
        raise UndoneError(f"the redis store failed: {reply.word}")
    raise _no_record()


def _scanned(reply: Any) -> tuple[bytes, list[bytes]]:
    """The cursor of a SCAN, and the keys that it found."""
    match _checked(reply, frozenset({list}), frozenset({bytes, list})):
        case [bytes(cursor), list(keys)] if all(type(key) is bytes for key in keys):
            return cursor, keys
    raise _no_record()


def _text(name: Any) -> str:
    """A key of ours."""
    try:
        return str(name, "ascii")
    except (TypeError, UnicodeDecodeError):
        raise _no_record() from None


def _field(name: str) -> bytes:
    return b"." + name.encode("utf-8", "surrogatepass")


def _pairs(fields: Mapping[str, bytes]) -> Iterator[bytes]:
    for name, value in fields.items():
        yield _field(name)
        yield value
