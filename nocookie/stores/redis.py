"""Sessions in Redis or Valkey: one server or a cluster, for any number of hosts.

A session is one hash. Its fields are those of the session, each with a dot before its name, and
the field `m`: the version of this format, when the session began, its last use, its end, the
version of the record, and the seal. Times are written as Python writes them, and come back as
they were; Lua would round them.

The rules of this file:

1. A write is one script. What it depends on (the record lives, has this seal, this version) and
   the write itself are one step of the server.
2. A script touches one key, so that a cluster can run it.
3. Nobody but this store decides when a session ends: `m` says it, by the clocks of the
   application. The server's own expiry comes later, by GRACE, and only frees the space.
4. A field `m` that is not there or cannot be read, or another type of value under a key, is a
   corrupted record, or one of a later version: never written, never replaced, only destroyed.

A rotation cannot be one step then. The old record is buried first: `m` becomes `t`, with the new
key beside it, and from that moment it is gone for everybody. Then the new record is created, and
the buried one removed. If the new key is taken, or its server refuses or cannot be reached, the
old one is dug out again, unless somebody has destroyed it meanwhile. If this process dies in
between, or an answer is lost, the session may be; there are never two. What is buried and
forgotten goes after TOMB_TIME.
"""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha1
from typing import Any, Final

from nocookie.errors import SessionGone, StoreError
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Record,
    VersionChanged,
    merge,
    new_record,
)
from nocookie.stores.redis_wire import Command, Undone, UndoneError, connect

__all__ = ["RedisStore"]

#: In seconds: how much later than the session's end the server frees its space. Longer than the
#: clocks of two hosts may differ, so that none of them loses a session that lives for it; and for
#: so long an expired session is known as expired.
GRACE: Final = 120
#: In seconds. Longer than any rotation takes.
TOMB_TIME: Final = 60
#: Seconds from which on a record has no expiry on the server: three hundred years.
FOR_EVER: Final = 1e10
#: How many keys one step of a listing looks at.
BATCH: Final = 500

FORMAT: Final = b"1"
META: Final = b"m"
TOMB: Final = b"t"

# -- the scripts ---------------------------------------------------------------------------------
#
# ARGV[1] is the time, always. A record's times stay texts, and are compared as numbers.

PRELUDE: Final = """
local key = KEYS[1]

local function number(text)
  return text == 'inf' and math.huge or tonumber(text)
end

local function parse(meta)
  local created, accessed, expires, version, seal =
    string.match(meta, '^1 (%S+) (%S+) (%S+) (%d+) (.*)$')
  if created and number(created) and number(accessed) and number(expires) then
    return created, accessed, expires, version, seal
  end
end

-- What `m` says, if the record lives.
local function living()
  local created, accessed, expires, version, seal = parse(redis.call('HGET', key, 'm') or '')
  if created and number(expires) > number(ARGV[1]) then
    return created, accessed, expires, version, seal
  end
end

local function expire(milliseconds)
  if milliseconds == '' then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, milliseconds)
  end
end

-- When it was used and when it ends, if it is used now. Who used it last may have a clock that is
-- ahead of ours: time does not run backwards then, nor if it is far ahead, which is no skew.
local function renewed(accessed, ends, ttl)
  local ahead = number(accessed) - number(ARGV[1])
  if ahead > 0 and ahead <= GRACE then
    if ttl == 'inf' then return accessed, 'inf' end
    return accessed, string.format('%.17g', number(accessed) + number(ttl))
  end
  return ARGV[1], ends
end

local function write(created, accessed, expires, version, seal)
  return redis.pcall('HSET', key, 'm',
    '1 ' .. created .. ' ' .. accessed .. ' ' .. expires .. ' ' .. version .. ' ' .. seal)
end

-- Lua takes some thousand arguments at once, and an even number of them are pairs.
local function each(command, first, last)
  for i = first, last, 1000 do
    redis.call(command, key, unpack(ARGV, i, math.min(i + 999, last)))
  end
end
""".replace("GRACE", str(GRACE))

#: now, milliseconds, m, name, value, ...
CREATE: Final = """
local meta = redis.call('HGET', key, 'm')
if meta then
  local _, _, expires = parse(meta)
  if not expires or number(expires) > number(ARGV[1]) then return 0 end
elseif redis.call('EXISTS', key) == 1 and redis.call('HEXISTS', key, 't') == 0 then
  return 0
end
redis.call('UNLINK', key)
redis.call('HSET', key, 'm', ARGV[3])
each('HSET', 4, #ARGV)
expire(ARGV[2])
return 1
"""

#: now, ends, ttl, milliseconds, expect, whether there is a seal, seal, cleared, how many deleted,
#: deleted, ..., name, value, ...
SAVE: Final = """
local created, accessed, _, version, seal = living()
if not created or ARGV[6] == '1' and seal ~= ARGV[7] then return 0 end
if ARGV[5] ~= '' and ARGV[5] ~= version then return -1 end
local expires
accessed, expires = renewed(accessed, ARGV[2], ARGV[3])
-- First, because this is what a full server refuses, and then nothing is done.
local done = write(created, accessed, expires, string.format('%d', number(version) + 1), seal)
if type(done) == 'table' then return done end
if ARGV[8] == '1' then
  local names = redis.call('HKEYS', key)
  for i = 1, #names, 1000 do
    local some = {}
    for j = i, math.min(i + 999, #names) do
      if names[j] ~= 'm' then some[#some + 1] = names[j] end
    end
    if #some > 0 then redis.call('HDEL', key, unpack(some)) end
  end
end
local deleted = tonumber(ARGV[9])
each('HDEL', 10, 9 + deleted)
each('HSET', 10 + deleted, #ARGV)
expire(ARGV[4])
return 1
"""

#: now, ends, ttl, milliseconds, whether there is a seal, seal
TOUCH: Final = """
local created, accessed, _, version, seal = living()
if not created or ARGV[5] == '1' and seal ~= ARGV[6] then return 0 end
local expires
accessed, expires = renewed(accessed, ARGV[2], ARGV[3])
local done = write(created, accessed, expires, version, seal)
if type(done) == 'table' then return done end
expire(ARGV[4])
return 1
"""

#: now, ends, milliseconds, lifetime, after. Whatever becomes of the renewing, the record is read:
#: a full server reads on. Only that this is no primary any more must be told.
LOAD_AND_TOUCH: Final = """
local all = redis.call('HGETALL', key)
local created, accessed, _, version, seal = living()
if created and number(ARGV[1]) - number(accessed) > number(ARGV[5]) then
  local ends = ARGV[2]
  if ARGV[4] ~= 'inf' and number(created) + number(ARGV[4]) < number(ends) then
    ends = string.format('%.17g', number(created) + number(ARGV[4]))
  end
  if number(ends) > number(ARGV[1]) then
    local done = write(created, ARGV[1], ends, version, seal)
    if type(done) ~= 'table' then
      expire(ARGV[3])
    elseif string.find(done.err, 'READONLY', 1, true) then
      return done
    end
  end
end
return all
"""

#: now, the new key
BURY: Final = """
if not living() then return false end
local all = redis.call('HGETALL', key)
local meta = redis.call('HGET', key, 'm')
redis.call('HSET', key, 't', ARGV[2] .. ' ' .. meta)
redis.call('HDEL', key, 'm')
redis.call('PEXPIRE', key, TOMB_TIME * 1000)
return all
""".replace("TOMB_TIME", str(TOMB_TIME))

#: now, milliseconds, m, t. The first write takes something away, so a full server allows it all.
DIG_OUT: Final = """
if redis.call('HGET', key, 't') ~= ARGV[4] then return 0 end
redis.call('HDEL', key, 't')
redis.call('HSET', key, 'm', ARGV[3])
expire(ARGV[2])
return 1
"""


class _Script:
    """A script, and the name under which a server has it once it has run there."""

    def __init__(self, text: str) -> None:
        self.text = (PRELUDE + text).encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


_CREATE: Final = _Script(CREATE)
_SAVE: Final = _Script(SAVE)
_TOUCH: Final = _Script(TOUCH)
_LOAD_AND_TOUCH: Final = _Script(LOAD_AND_TOUCH)
_BURY: Final = _Script(BURY)
_DIG_OUT: Final = _Script(DIG_OUT)


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
        _living.add(self)

    # -- the contract ---------------------------------------------------------------------------

    def load(self, key: str) -> Record | Missing:
        reply = self._call(key, (b"HGETALL", self._prefix + key.encode()), again=True)
        return self._record(reply)

    def create(self, key: str, record: Record, ttl: float) -> None:
        fields, created, *_, seal = record
        if not self._create(key, fields, created, 1, seal, ttl, self._until()):
            raise KeyTaken

    def save(
        self,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None = None,
        seal: bytes | None = None,
    ) -> None:
        changes, deleted, cleared = delta
        now = self._clock()
        names = () if cleared else deleted
        done = self._run(
            _SAVE,
            key,
            _text(now),
            _text(now + ttl),
            _text(ttl),
            _expiry(ttl),
            b"" if expect is None else b"%d" % expect,
            b"0" if seal is None else b"1",
            seal or b"",
            b"1" if cleared else b"0",
            b"%d" % len(names),
            *map(_field, names),
            *_pairs(changes),
        )
        if done == -1:
            raise VersionChanged
        if done != 1:
            raise SessionGone("the session has ended")

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        now = self._clock()
        done = self._run(
            _TOUCH,
            key,
            _text(now),
            _text(now + ttl),
            _text(ttl),
            _expiry(ttl),
            b"0" if seal is None else b"1",
            seal or b"",
            again=True,
        )
        if done != 1:
            raise SessionGone("the session has ended")

    def rotate(self, old: str, new: str, delta: Delta, seal: bytes, ttl: float) -> None:
        until = self._until()
        buried = self._run(_BURY, old, _text(self._clock()), new.encode(), until=until)
        if not isinstance(buried, list):
            raise SessionGone("the session has ended")
        meta = buried[buried.index(META) + 1]
        record = self._record(buried)
        created = False
        try:
            if isinstance(record, Missing):
                raise SessionGone("the session has ended")
            # A quarter of the time is kept for what may have to be done then.
            created = self._create(
                new,
                merge(record.fields, delta),
                record.created,
                record.version + 1,
                seal,
                ttl,
                until - self._deadline / 4,
            )
            if not created:
                raise KeyTaken
        except (KeyTaken, SessionGone, Undone):
            self._dig_out(old, new, meta, until)
            raise
        try:
            self._call(old, (b"UNLINK", self._prefix + old.encode()), again=True, until=until)
        except StoreError:
            pass  # it is dead already, and goes after TOMB_TIME

    def destroy(self, key: str) -> None:
        # Not a script: what only frees memory is allowed also when there is none left.
        self._call(key, (b"UNLINK", self._prefix + key.encode()), again=True)

    def close(self) -> None:
        self._wire.close()

    # -- optional powers ------------------------------------------------------------------------

    def load_and_touch(
        self, key: str, idle: float, lifetime: float, after: float
    ) -> Record | Missing:
        now = self._clock()
        reply = self._run(
            _LOAD_AND_TOUCH,
            key,
            _text(now),
            _text(now + idle),
            _expiry(idle),
            _text(lifetime),
            _text(after),
            again=True,
        )
        return self._record(reply)

    def keys(self) -> Iterator[str]:
        # A scan names a key twice if the server reorders its table meanwhile.
        seen: set[bytes] = set()
        pattern = re.sub(rb"([*?\[\]^\\-])", rb"\\\1", self._prefix) + b"?" * 64
        for node in self._wire.primaries(self._until()):
            cursor = b"0"
            while True:
                scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % BATCH)
                cursor, found = _checked(node.ask([scan], self._until(), again=True)[0])
                places = [place for place in dict.fromkeys(found) if place not in seen]
                seen.update(places)
                metas = [(b"HGET", place, META) for place in places]
                if metas:
                    replies = node.ask(metas, self._until(), again=True)
                    for place, meta in zip(places, replies, strict=True):
                        if type(meta) is bytes and isinstance(self._record([META, meta]), Record):
                            yield place[len(self._prefix) :].decode()
                if cursor == b"0":
                    break

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
        until: float,
    ) -> bool:
        now = self._clock()
        meta = b" ".join(
            (FORMAT, _text(created), _text(now), _text(now + ttl), b"%d" % version, seal)
        )
        reply = self._run(
            _CREATE, key, _text(now), _expiry(ttl), meta, *_pairs(fields), until=until
        )
        return bool(reply == 1)

    def _dig_out(self, old: str, new: str, meta: bytes, until: float) -> None:
        expires = meta.split(b" ", 4)[3]
        now = self._clock()
        tomb = new.encode() + b" " + meta
        try:
            self._run(
                _DIG_OUT, old, _text(now), _expiry(float(expires) - now), meta, tomb, until=until
            )
        except StoreError:
            pass  # what went wrong before is on its way to the caller

    def _run(
        self,
        script: _Script,
        key: str,
        *arguments: bytes,
        again: bool = False,
        until: float | None = None,
    ) -> Any:
        until = until or self._until()
        rest = (b"1", self._prefix + key.encode(), *arguments)
        try:
            return self._call(key, (b"EVALSHA", script.sha, *rest), again, until)
        except _NotLoaded:
            return self._call(key, (b"EVAL", script.text, *rest), again, until)

    def _call(
        self, key: str, command: Command, again: bool = False, until: float | None = None
    ) -> Any:
        """Return the reply; None if there is another type of value under the key."""
        place = self._prefix + key.encode()
        return _checked(self._wire.call(place, command, until or self._until(), again))

    def _record(self, reply: list[bytes] | None) -> Record | Missing:
        if not reply:
            return Missing.UNKNOWN if reply == [] else Missing.CORRUPTED
        items = iter(reply)
        fields = dict(zip(items, items, strict=True))
        meta = fields.pop(META, None)
        if meta is None:
            return Missing.UNKNOWN if TOMB in fields else Missing.CORRUPTED
        try:
            format, begun, used, end, number, seal = meta.split(b" ", 5)
            created, accessed, expires = float(begun), float(used), float(end)
            version = int(number)
            if format != FORMAT or created != created or accessed != accessed:
                return Missing.CORRUPTED
            if not expires > self._clock():
                return Missing.EXPIRED if expires == expires else Missing.CORRUPTED
            names = {
                name[1:].decode("utf-8", "surrogatepass"): value for name, value in fields.items()
            }
        except ValueError:
            return Missing.CORRUPTED
        return new_record((names, created, accessed, expires, version, seal))


class _NotLoaded(Exception):
    """The server does not have the script."""


def _checked(reply: Any) -> Any:
    if not isinstance(reply, Exception):
        return reply
    # redis-py gives some errors a class, and takes their first word off; scripts of old servers
    # put words of their own in front.
    name, text = type(reply).__name__, str(reply)
    if name == "NoScriptError":
        raise _NotLoaded
    if "WRONGTYPE" in text:
        return None
    if name == "ResponseError":
        name = text.partition(" ")[0]
    raise UndoneError(f"the redis store failed: {name}")


def _field(name: str) -> bytes:
    return b"." + name.encode("utf-8", "surrogatepass")


def _pairs(fields: Mapping[str, bytes]) -> Iterator[bytes]:
    for name, value in fields.items():
        yield _field(name)
        yield value


def _text(seconds: float) -> bytes:
    return repr(float(seconds)).encode()


def _expiry(ttl: float) -> bytes:
    """When the server may free the space: in milliseconds from now, nothing for never."""
    return b"" if ttl > FOR_EVER else b"%d" % ((ttl + GRACE) * 1000)


_living: weakref.WeakSet[RedisStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_living):
        store._wire.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
