"""The scripts that the store `redis` runs on the server. What is in a hash, and the rules, are in
`nocookie.stores.redis`.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

__all__ = ["FOR_EVER", "GRACE", "TOMB_TIME", "Script"]

#: In seconds: how much later than the session's end the server frees its space. Longer than the
#: clocks of two hosts may differ, so that none of them loses a session that lives for it; and for
#: so long an expired session is known as expired.
GRACE: Final = 120
#: In seconds. Longer than any rotation takes.
TOMB_TIME: Final = 60
#: Seconds from which on a record has no expiry on the server: three hundred years.
FOR_EVER: Final = 1e10
#: How many entries the index of an owner keeps that may be of the past, and how many of them an
#: addition then has looked at: more than it adds, so that the index does not grow for ever.
KEPT: Final = 8
LOOK: Final = 4

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
  local owned, created, accessed, expires, version, seal =
    string.match(meta, '^1(o?) (%S+) (%S+) (%S+) (%d+) (.*)$')
  if created and number(created) and number(accessed) and number(expires) then
    return created, accessed, expires, version, seal, owned
  end
end
""",
    # The parts of `m`, if the record lives.
    "living": """
local function living(key)
  local created, accessed, expires, version, seal, owned =
    parse(redis.call('HGET', key, 'm') or '')
  if created and number(expires) > number(ARGV[1]) then
    return created, accessed, expires, version, seal, owned
  end
end
""",
    "after": """
local function after(begin, seconds)
  if seconds == 'inf' then return 'inf' end
  return string.format('%.17g', number(begin) + number(seconds))
end
""",
    # Whether the record may now outlive the entry that the index of its owner has.
    "outlives": """
local function outlives(key, owned, ttl)
  if owned == '' then return false end
  local owner = redis.call('HGET', key, 'o')
  return owner and number(after(ARGV[1], ttl)) > number(string.match(owner, '^%S+'))
end
""",
    # Write `m`, used now, to end in `ttl` seconds. Return an error table if the server refuses;
    # this comes before all other writes, so then nothing is done.
    "renew": """
local function renew(key, created, accessed, version, seal, owned, ttl)
  -- Who used it last may have a clock that is ahead of ours: time does not run backwards then.
  -- Too far ahead is no skew but a clock that was wrong.
  local ahead = number(accessed) - number(ARGV[1])
  local now = ahead > 0 and ahead <= GRACE and accessed or ARGV[1]
  local times = created .. ' ' .. now .. ' ' .. after(now, ttl)
  local meta = '1' .. owned .. ' ' .. times .. ' ' .. version .. ' ' .. seal
  return redis.pcall('HSET', key, 'm', meta)
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
    # The server's time, less what an entry of an index is safe from being judged.
    "settled": """
local function settled()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6 - TOMB_TIME
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

#: now, ttl, created, version, seal, `o` or nothing, nothing or what is to be replaced: "v", the
#: version, and the seal; "m" and `m`; "x" for what has none. Or "r", where twice is as good as
#: once. name, value, ...
CREATE: Final = """
local key = KEYS[1]
FUNCTIONS
local meta = redis.pcall('HGET', key, 'm')
local replaced = false
local owned = ARGV[6] == '' and '' or 'o'
if ARGV[7] ~= '' and ARGV[7] ~= 'r' then
  local is_other_type = type(meta) == 'table'
  if type(meta) == 'string' then
    local _, _, _, version, seal = parse(meta)
    replaced = ARGV[7] == 'm' .. meta or version and ARGV[7] == 'v' .. version .. ' ' .. seal
  elseif is_other_type or redis.call('EXISTS', key) == 1 then
    local ours = 0
    for _, name in ipairs(is_other_type and {} or {'t', 'f', 'd', 'b'}) do
      ours = ours + redis.call('HEXISTS', key, name)
    end
    replaced = ARGV[7] == 'x' and ours == 0
  end
  if not replaced then return -1 end
  if is_other_type then redis.call('UNLINK', key) end
elseif type(meta) == 'table' then
  return meta
elseif meta then
  local _, _, expires = parse(meta)
  if not expires or number(expires) > number(ARGV[1]) then
    local times = ARGV[3] .. ' ' .. ARGV[1] .. ' ' .. after(ARGV[1], ARGV[2])
    local mine = '1' .. owned .. ' ' .. times .. ' ' .. ARGV[4] .. ' ' .. ARGV[5]
    return ARGV[7] == 'r' and meta == mine and 1 or 0
  end
  redis.call('UNLINK', key)
elseif redis.call('EXISTS', key) == 1 then
  local trail = redis.call('HGET', key, 'f')
  local ends = trail and number(string.match(trail, '^%S+') or '')
  local over = ends and ends <= number(ARGV[1])
  local is_nothing = redis.call('HEXISTS', key, 't') + redis.call('HEXISTS', key, 'd') > 0
  if not over and not is_nothing then return 0 end
  redis.call('UNLINK', key)
end
local done = renew(key, ARGV[3], ARGV[1], ARGV[4], ARGV[5], owned, ARGV[2])
if type(done) == 'table' then return done end
if replaced then
  local gone = {}
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if name ~= 'm' then gone[#gone + 1] = name end
  end
  each('HDEL', key, gone, 1, #gone)
end
if owned == 'o' then redis.call('HSET', key, 'o', ARGV[6]) end
each('HSET', key, ARGV, 8, #ARGV)
expire(key, ARGV[2])
return 1
"""

#: now, ttl, expect, "=" and the seal, whether cleared, how many deleted, deleted, ..., name,
#: value, ...
SAVE: Final = """
local key = KEYS[1]
FUNCTIONS
local created, accessed, _, version, seal, owned = living(key)
if not created or ARGV[4] ~= '' and ARGV[4] ~= '=' .. seal then return 0 end
if ARGV[3] ~= '' and ARGV[3] ~= version then return -1 end
version = string.format('%.0f', number(version) + 1)
local done = renew(key, created, accessed, version, seal, owned, ARGV[2])
if type(done) == 'table' then return done end
if ARGV[5] == '1' then
  local gone = {}
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if name ~= 'm' and name ~= 'o' then gone[#gone + 1] = name end
  end
  each('HDEL', key, gone, 1, #gone)
end
local deleted = number(ARGV[6])
each('HDEL', key, ARGV, 7, 6 + deleted)
each('HSET', key, ARGV, 7 + deleted, #ARGV)
expire(key, ARGV[2])
return outlives(key, owned, ARGV[2]) and 2 or 1
"""

#: now, ttl, "=" and the seal
TOUCH: Final = """
local key = KEYS[1]
FUNCTIONS
local created, accessed, _, version, seal, owned = living(key)
if not created or ARGV[3] ~= '' and ARGV[3] ~= '=' .. seal then return 0 end
local done = renew(key, created, accessed, version, seal, owned, ARGV[2])
if type(done) == 'table' then return done end
expire(key, ARGV[2])
return outlives(key, owned, ARGV[2]) and 2 or 1
"""

#: now, idle, lifetime, after, ttl. With one field more, `i`, where the index of the owner has to
#: know of it. Whatever becomes of the renewing, the record is read: a full server reads on. Only
#: that this is no primary any more must be told.
LOAD: Final = """
local key = KEYS[1]
local fields = redis.call('HGETALL', key)
-- A small hash gives its fields in the order in which they came: so this is where `m` mostly is.
local meta = fields[1] == 'm' and fields[2] or redis.call('HGET', key, 'm')
local used = meta and tonumber(string.match(meta, '^1o? %S+ (%S+) '))
if used and ARGV[4] ~= '' and ARGV[1] - used > ARGV[4] + 0 then
  FUNCTIONS
  local created, accessed, _, version, seal, owned = living(key)
  if number(ARGV[1]) - used >= number(ARGV[2]) then return fields end  -- nobody may have it
  if created and redis.call('HEXISTS', key, '.\\0life') == 1 then return fields end
  local left = created and number(created) + number(ARGV[3]) - number(ARGV[1])
  if created and left > 0 then
    local ttl = left < number(ARGV[5]) and string.format('%.17g', left) or ARGV[5]
    local done = renew(key, created, accessed, version, seal, owned, ttl)
    if type(done) ~= 'table' then
      expire(key, ttl)
      if outlives(key, owned, ttl) then
        fields[#fields + 1] = 'i'
        fields[#fields + 1] = ''
      end
    elseif string.find(done.err, 'READONLY', 1, true) then
      return done
    end
  end
end
return fields
"""

#: now, the new key, "1" if that is in the index that it belongs in. If not, and there is an owner:
#: `o`. It lies as long as the record would have.
BURY: Final = """
local key = KEYS[1]
FUNCTIONS
local created, _, _, _, _, owned = living(key)
if not created then return 0 end
if owned == 'o' and ARGV[3] == '' then return redis.call('HGET', key, 'o') end
local fields = redis.call('HGETALL', key)
redis.call('HSET', key, 't', ARGV[2] .. ' ' .. redis.call('HGET', key, 'm'))
redis.call('HDEL', key, 'm')
return fields
"""

#: now, the new key, or what `CLAIM` made of it. The first write takes something away, so a full
#: server allows it all.
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

#: the new key, for how many milliseconds it is said that this was done. Twice is as good as once.
REMOVE: Final = """
local key = KEYS[1]
local found = redis.call('HMGET', key, 't', 'd')
if found[2] == ARGV[1] then return 1 end
if string.match(found[1] or '', '^%S+') ~= ARGV[1] then return 0 end
redis.call('UNLINK', key)
redis.call('HSET', key, 'd', ARGV[1])
redis.call('PEXPIRE', key, ARGV[2])
return 1
"""

#: the new key, the trail or nothing. 1 if the rotation can be taken back: no later step of it finds
#: its tomb any more. 2 if it has been done.
CLAIM: Final = """
local key = KEYS[1]
local found = redis.call('HMGET', key, 't', 'd', 'f')
if found[2] == ARGV[1] or ARGV[2] ~= '' and found[3] == ARGV[2] then return 2 end
local claim, new, meta = string.match(found[1] or '', '^(!?)(%S+) (.*)$')
if new ~= ARGV[1] then return 0 end
if claim == '' then redis.call('HSET', key, 't', '!' .. new .. ' ' .. meta) end
return 1
"""

#: for how many milliseconds nothing can be created here.
BLOCK: Final = """
local key = KEYS[1]
redis.call('UNLINK', key)
redis.call('HSET', key, 'b', '')
redis.call('PEXPIRE', key, ARGV[1])
return 1
"""

#: the new key, the trail, for how many milliseconds. Twice is as good as once.
LEAVE: Final = """
local key = KEYS[1]
local found = redis.call('HMGET', key, 't', 'f')
if found[2] == ARGV[2] then return 1 end
if string.match(found[1] or '', '^%S+') ~= ARGV[1] then return 0 end
redis.call('UNLINK', key)
redis.call('HSET', key, 'f', ARGV[2])
redis.call('PEXPIRE', key, ARGV[3])
return 1
"""

#: the trail that is to be removed, or nothing; now, if only what has expired is to go, or nothing.
#: Any other trail is left, and returned; and whatever else is there goes. What only frees memory is
#: allowed also when there is none left.
DESTROY: Final = """
local key = KEYS[1]
if ARGV[2] ~= '' then
  FUNCTIONS
  local created, _, expires = parse(redis.call('HGET', key, 'm') or '')
  if created and number(expires) <= number(ARGV[2]) then redis.call('UNLINK', key) end
  return ''
end
local trail = redis.pcall('HGET', key, 'f')
if type(trail) ~= 'string' then trail = '' end
if trail ~= ARGV[1] then return trail end
redis.call('UNLINK', key)
return ''
"""

# -- of an owner

#: now, the owner. 1 if it has ended a living record of this owner; if that was moving, the new key.
END: Final = """
local key = KEYS[1]
FUNCTIONS
local owner = redis.pcall('HGET', key, 'o')
if type(owner) ~= 'string' or string.match(owner, '^%S+ (.*)$') ~= ARGV[2] then return 0 end
local moving = string.match(redis.call('HGET', key, 't') or '', '^!?(%S+)')
local lives = living(key)
redis.call('UNLINK', key)
return moving or (lives and 1 or 0)
"""

#: `o` as it was, and as it is to be
EXTEND: Final = """
local key = KEYS[1]
if redis.call('HGET', key, 'o') ~= ARGV[1] then return 0 end
redis.call('HSET', key, 'o', ARGV[2])
return 1
"""

# The index of an owner is a sorted set of keys, in the order in which they came to it: by the
# server's clock, in seconds, as an entry is not judged before TOMB_TIME is over.

#: the key, "1" if it comes anew, for how many milliseconds the index is needed, or nothing for
#: ever. Returns a few that may be of the past.
ADD: Final = """
local index = KEYS[1]
FUNCTIONS
local before = redis.call('PTTL', index)  -- -2: there is none; -1: for ever
local time = settled()
-- Behind all others, also if the clock was put back.
local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2]
local score = math.max(time + TOMB_TIME, last and number(last) + 1e-6 or 0)
score = string.format('%.6f', score)
if ARGV[2] == '1' then
  redis.call('ZADD', index, score, ARGV[1])
else
  redis.call('ZADD', index, 'NX', score, ARGV[1])
end
if ARGV[3] == '' then
  redis.call('PERSIST', index)
elseif before ~= -1 and before < number(ARGV[3]) then
  redis.call('PEXPIRE', index, ARGV[3])
end
local old = redis.call('ZCOUNT', index, '-inf', time)
if old <= KEPT then return {} end
-- At random: so those that live, and are the oldest for long, do not hide the others.
local first = number(string.sub(score, -5)) % (old - LOOK + 1)
return redis.call('ZRANGEBYSCORE', index, '-inf', time, 'LIMIT', first, LOOK)
"""

#: keys that have no record of the owner. Those that came a moment ago may be about to.
PRUNE: Final = """
local index = KEYS[1]
FUNCTIONS
local time = settled()
for _, name in ipairs(ARGV) do
  local score = redis.call('ZSCORE', index, name)
  if score and number(score) <= time then redis.call('ZREM', index, name) end
end
return 1
"""


class Script:
    """A script, and the name under which a server has it once it has run there."""

    def __init__(self, text: str) -> None:
        begin, _, rest = text.partition("FUNCTIONS\n")
        for name, function in reversed(FUNCTIONS.items()):
            if f"{name}(" in rest:
                rest = function + rest
        text = begin + rest
        numbers = {
            "GRACE": GRACE,
            "FOR_EVER": FOR_EVER,
            "TOMB_TIME": TOMB_TIME,
            "KEPT": KEPT,
            "LOOK": LOOK,
        }
        for name, number in numbers.items():
            text = text.replace(name, str(number))
        self.text = text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()
