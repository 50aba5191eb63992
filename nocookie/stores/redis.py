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
key beside it, and from that moment it is gone for everybody. Then the new record is created. Then
the buried one is removed, and this decides: only if it was still there has the rotation happened.
If it was not, somebody has destroyed the session meanwhile, and the new record is taken away
before anybody hears of its key. So a logout ends the session whenever it comes.

If the first step may have failed, or the second surely has (the new key is taken, or its server
refuses or cannot be reached), the old one is dug out again, unless somebody has destroyed it
meanwhile; so it is if the third step fails, once the new one has surely been taken away. If this
process dies in between, or it is not known what became of the second step, the session may be
lost; there are never two. What is buried and forgotten goes after TOMB_TIME.
"""

from __future__ import annotations

import math
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
from nocookie.stores.redis_wire import ErrorReply, Undone, UndoneError, connect

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
# KEYS[1] is the key, ARGV[1] the time. A record's times stay texts, and are compared as numbers;
# '%.17g' gives a time that was reckoned here its every bit. FUNCTIONS in a script stands for those
# of the functions below that it calls, where it comes to need them: making them is a part of what
# a script costs.

FUNCTIONS: Final = {
    "number": """
local function number(text)
  local value = text == 'inf' and math.huge or tonumber(text)
  if value == value then return value end  -- which 'nan' is not
end
""",
    # The parts of `m`, or nothing if it cannot be read.
    "parse": """
local function parse(meta)
  local created, accessed, expires, version, seal =
    string.match(meta, '^1 (%S+) (%S+) (%S+) (%d+) (.*)$')
  if created and number(created) and number(accessed) and number(expires) then
    return created, accessed, expires, version, seal
  end
end
""",
    # The parts of `m`, if the record lives.
    "living": """
local function living(key)
  local created, accessed, expires, version, seal = parse(redis.call('HGET', key, 'm') or '')
  if created and number(expires) > number(ARGV[1]) then
    return created, accessed, expires, version, seal
  end
end
""",
    "after": """
local function after(begin, seconds)
  if seconds == 'inf' then return 'inf' end
  return string.format('%.17g', number(begin) + number(seconds))
end
""",
    # Write `m`, used now, to end in `ttl` seconds. Return an error table if the server refuses;
    # this comes before all other writes, so then nothing is done.
    "renew": """
local function renew(key, created, accessed, version, seal, ttl)
  -- Who used it last may have a clock that is ahead of ours: time does not run backwards then.
  -- Too far ahead is no skew but a clock that was wrong.
  local ahead = number(accessed) - number(ARGV[1])
  local now = ahead > 0 and ahead <= GRACE and accessed or ARGV[1]
  local meta = '1 ' .. created .. ' ' .. now .. ' ' .. after(now, ttl) .. ' ' .. version .. ' '
  return redis.pcall('HSET', key, 'm', meta .. seal)
end
""",
    # The server's own expiry.
    "expire": """
local function expire(key, ttl)
  if number(ttl) > FOR_EVER then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, string.format('%.0f', (number(ttl) + GRACE) * 1000))
  end
end
""",
    # Lua passes on some thousand arguments at once; an even number of them keeps pairs together.
    "each": """
local function each(command, key, words, first, last)
  for i = first, last, 1000 do
    redis.call(command, key, unpack(words, i, math.min(i + 999, last)))
  end
end
""",
}

#: now, ttl, created, version, seal, name, value, ...
CREATE: Final = """
local key = KEYS[1]
FUNCTIONS
local meta = redis.call('HGET', key, 'm')
if meta then
  local _, _, expires = parse(meta)
  if not expires or number(expires) > number(ARGV[1]) then return 0 end
  redis.call('UNLINK', key)
elseif redis.call('HEXISTS', key, 't') == 1 then
  redis.call('UNLINK', key)
elseif redis.call('EXISTS', key) == 1 then
  return 0
end
local done = renew(key, ARGV[3], ARGV[1], ARGV[4], ARGV[5], ARGV[2])
if type(done) == 'table' then return done end
each('HSET', key, ARGV, 6, #ARGV)
expire(key, ARGV[2])
return 1
"""

#: now, ttl, expect, "=" and the seal, whether cleared, how many deleted, deleted, ..., name,
#: value, ...
SAVE: Final = """
local key = KEYS[1]
FUNCTIONS
local created, accessed, _, version, seal = living(key)
if not created or ARGV[4] ~= '' and ARGV[4] ~= '=' .. seal then return 0 end
if ARGV[3] ~= '' and ARGV[3] ~= version then return -1 end
version = string.format('%.0f', number(version) + 1)
local done = renew(key, created, accessed, version, seal, ARGV[2])
if type(done) == 'table' then return done end
if ARGV[5] == '1' then
  local gone = {}
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if name ~= 'm' then gone[#gone + 1] = name end
  end
  each('HDEL', key, gone, 1, #gone)
end
local deleted = number(ARGV[6])
each('HDEL', key, ARGV, 7, 6 + deleted)
each('HSET', key, ARGV, 7 + deleted, #ARGV)
expire(key, ARGV[2])
return 1
"""

#: now, ttl, "=" and the seal
TOUCH: Final = """
local key = KEYS[1]
FUNCTIONS
local created, accessed, _, version, seal = living(key)
if not created or ARGV[3] ~= '' and ARGV[3] ~= '=' .. seal then return 0 end
local done = renew(key, created, accessed, version, seal, ARGV[2])
if type(done) == 'table' then return done end
expire(key, ARGV[2])
return 1
"""

#: now, idle, lifetime, after. Whatever becomes of the renewing, the record is read: a full server
#: reads on. Only that this is no primary any more must be told.
LOAD: Final = """
local key = KEYS[1]
local fields = redis.call('HGETALL', key)
-- A small hash gives its fields in the order in which they came: so this is where `m` mostly is.
local meta = fields[1] == 'm' and fields[2] or redis.call('HGET', key, 'm')
local used = meta and tonumber(string.match(meta, '^1 %S+ (%S+) '))
if used and ARGV[4] ~= '' and ARGV[1] - used > ARGV[4] + 0 then
  FUNCTIONS
  local created, accessed, _, version, seal = living(key)
  local left = created and number(created) + number(ARGV[3]) - number(ARGV[1])
  if created and left > 0 then
    local ttl = left < number(ARGV[2]) and string.format('%.17g', left) or ARGV[2]
    local done = renew(key, created, accessed, version, seal, ttl)
    if type(done) ~= 'table' then
      expire(key, ttl)
    elseif string.find(done.err, 'READONLY', 1, true) then
      return done
    end
  end
end
return fields
"""

#: now, the new key
BURY: Final = """
local key = KEYS[1]
FUNCTIONS
if not living(key) then return 0 end
local fields = redis.call('HGETALL', key)
redis.call('HSET', key, 't', ARGV[2] .. ' ' .. redis.call('HGET', key, 'm'))
redis.call('HDEL', key, 'm')
redis.call('PEXPIRE', key, TOMB_TIME * 1000)
return fields
"""

#: now, the new key. The first write takes something away, so a full server allows it all.
DIG_OUT: Final = """
local key = KEYS[1]
FUNCTIONS
local tomb = redis.call('HGET', key, 't') or ''
local new, meta = string.match(tomb, '^(%S+) (.*)$')
if new ~= ARGV[2] then return 0 end
redis.call('HDEL', key, 't')
redis.call('HSET', key, 'm', meta)
local _, _, expires = parse(meta)
expire(key, number(expires) - number(ARGV[1]))
return 1
"""

#: the new key
REMOVE: Final = """
local key = KEYS[1]
if string.match(redis.call('HGET', key, 't') or '', '^%S+') ~= ARGV[1] then return 0 end
return redis.call('UNLINK', key)
"""


class _Script:
    """A script, and the name under which a server has it once it has run there."""

    def __init__(self, text: str) -> None:
        begin, _, rest = text.partition("FUNCTIONS\n")
        for name, function in reversed(FUNCTIONS.items()):
            if f"{name}(" in rest:
                rest = function + rest
        text = begin + rest
        numbers = {"GRACE": GRACE, "FOR_EVER": FOR_EVER, "TOMB_TIME": TOMB_TIME}
        for name, number in numbers.items():
            text = text.replace(name, str(number))
        self.text = text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


_CREATE: Final = _Script(CREATE)
_SAVE: Final = _Script(SAVE)
_TOUCH: Final = _Script(TOUCH)
_LOAD: Final = _Script(LOAD)
_BURY: Final = _Script(BURY)
_DIG_OUT: Final = _Script(DIG_OUT)
_REMOVE: Final = _Script(REMOVE)


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
        now = self._clock()
        return _record(self._run(_LOAD, key, b"%a" % now, b"", b"", b"", again=True), now)

    def create(self, key: str, record: Record, ttl: float) -> None:
        fields, created, *_, seal = record
        self._create(key, fields, created, 1, seal, ttl, self._until())

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
        )
        if done == -1:
            raise VersionChanged
        if done != 1:
            raise SessionGone("the session has ended")

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        there = b"" if seal is None else b"=" + seal
        done = self._run(_TOUCH, key, b"%a" % self._clock(), b"%a" % ttl, there, again=True)
        if done != 1:
            raise SessionGone("the session has ended")

    def rotate(self, old: str, new: str, delta: Delta, seal: bytes, ttl: float) -> None:
        if old == new:
            raise KeyTaken
        until = self._until()
        # A quarter of the time is kept for what may have to be done then.
        soon = until - self._deadline / 4
        now = self._clock()
        try:
            buried = self._run(_BURY, old, b"%a" % now, new.encode(), until=soon)
        except StoreError:
            self._dig_out(old, new, until)
            raise
        if not isinstance(buried, list):
            raise SessionGone("the session has ended")
        record = _record(buried, now)
        try:
            if isinstance(record, Missing):
                raise SessionGone("the session has ended")
            fields, version = merge(record.fields, delta), record.version + 1
            self._create(new, fields, record.created, version, seal, ttl, soon)
        except (KeyTaken, SessionGone, Undone):
            self._dig_out(old, new, until)
            raise
        try:
            if self._run(_REMOVE, old, new.encode(), until=soon) != 1:
                raise SessionGone("the session was destroyed while it moved")
        except (SessionGone, StoreError):
            self._unlink(new, until)
            self._dig_out(old, new, until)
            raise

    def destroy(self, key: str) -> None:
        # Not a script: what only frees memory is allowed also when there is none left.
        self._unlink(key, self._until())

    def close(self) -> None:
        self._wire.close()

    # -- optional powers ------------------------------------------------------------------------

    def load_and_touch(
        self, key: str, idle: float, lifetime: float, after: float
    ) -> Record | Missing:
        now = self._clock()
        times = b"%a" % now, b"%a" % idle, b"%a" % lifetime, b"%a" % after
        return _record(self._run(_LOAD, key, *times, again=True), now)

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
                    now = self._clock()
                    for place, meta in zip(places, replies, strict=True):
                        if _is_living(meta, now):
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
    ) -> None:
        meta = b"%a" % created, b"%d" % version, seal
        times = b"%a" % self._clock(), b"%a" % ttl
        if self._run(_CREATE, key, *times, *meta, *_pairs(fields), until=until) != 1:
            raise KeyTaken

    def _dig_out(self, old: str, new: str, until: float) -> None:
        try:
            self._run(_DIG_OUT, old, b"%a" % self._clock(), new.encode(), until=until)
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
        """Return the reply; None if there is another type of value under the key."""
        place = self._prefix + key.encode()
        if until is None:
            until = time.monotonic() + self._deadline
        command = (b"EVALSHA", script.sha, b"1", place, *arguments)
        reply = self._wire.call(place, command, until, again)
        if type(reply) is not ErrorReply:
            return reply
        if reply.word == "NOSCRIPT":
            command = (b"EVAL", script.text, *command[2:])
            reply = self._wire.call(place, command, until, again)
        return _checked(reply)

    def _unlink(self, key: str, until: float) -> None:
        place = self._prefix + key.encode()
        _checked(self._wire.call(place, (b"UNLINK", place), until, again=True))


def _record(reply: list[bytes] | None, now: float) -> Record | Missing:
    if reply is None:
        return Missing.CORRUPTED
    meta, fields = None, {}
    names_and_values = iter(reply)
    try:
        for name in names_and_values:
            if name == META:
                meta = next(names_and_values)
            else:
                fields[str(name, "utf-8", "surrogatepass")[1:]] = next(names_and_values)
        if meta is None:
            return Missing.CORRUPTED if fields and TOMB not in reply[::2] else Missing.UNKNOWN
        created, accessed, expires, version, seal = _parts(meta)
    except ValueError:
        return Missing.CORRUPTED
    if expires <= now:
        return Missing.EXPIRED
    return new_record((fields, created, accessed, expires, version, seal))


def _parts(meta: bytes) -> tuple[float, float, float, int, bytes]:
    format, created, accessed, expires, version, seal = meta.split(b" ", 5)
    parts = float(created), float(accessed), float(expires), int(version), seal
    if format != FORMAT or math.isnan(parts[0] + parts[1] + parts[2]):
        raise ValueError
    return parts


def _is_living(meta: object, now: float) -> bool:
    try:
        return isinstance(meta, bytes) and _parts(meta)[2] > now
    except ValueError:
        return False


def _checked(reply: Any) -> Any:
    if not isinstance(reply, ErrorReply):
        return reply
    if "WRONGTYPE" in reply.text:  # scripts of old servers put words of their own in front
        return None
    raise UndoneError(f"the redis store failed: {reply.word}")


def _field(name: str) -> bytes:
    return b"." + name.encode("utf-8", "surrogatepass")


def _pairs(fields: Mapping[str, bytes]) -> Iterator[bytes]:
    for name, value in fields.items():
        yield _field(name)
        yield value


_living: weakref.WeakSet[RedisStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_living):
        store._wire.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
