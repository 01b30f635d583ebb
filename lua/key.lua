-- Put an API key on the keyring, or revoke one. Walks over the whole keyring when it makes room.
--
-- KEYS    the keyring of the fleet, a hash; the events of the fleet, a stream
-- ARGV    a tag; the id of the key; its record, empty: revoke it; how many keys there may be;
--         for how long one that has ended is remembered, in microseconds; the name of the
--         key, who orders it, and why
-- returns the tag, a letter: G done, U unknown, F too many keys

-- @include lib/clock
-- @include lib/events

local keyring, stream = KEYS[1], KEYS[2]
local tag, id, record, most, keep, name, actor, why = unpack(ARGV)
local now, answer = now_us(), "G"

-- A record begins with the time at which it expires, -1: never.
local function forget_what_ended_long_ago()
  local fields = redis.call("HGETALL", keyring)
  for i = 1, #fields, 2 do
    local kind, of = string.sub(fields[i], 1, 1), string.sub(fields[i], 2)
    local ended = (kind == "k" or kind == "r") and struct.unpack("<d", fields[i + 1]) or -1
    if ended >= 0 and ended + keep < now then
      redis.call("HDEL", keyring, "k" .. of, "r" .. of)
    end
  end
end

local function tell(type)
  redis.call("HSET", keyring, "version", tag)
  publish({ { "type", type, "key", name, "actor", actor, "reason", why } }, stream, "", now)
end

local known = redis.call("HEXISTS", keyring, "k" .. id) == 1
if record == "" then
  if not known then
    answer = "U"
  elseif redis.call("HSETNX", keyring, "r" .. id, struct.pack("<d", now)) == 1 then
    tell("key_revoked")
  end
elseif not known then -- else this very order, whose answer was lost
  if redis.call("HLEN", keyring) >= tonumber(most) then
    forget_what_ended_long_ago()
  end
  if redis.call("HLEN", keyring) >= tonumber(most) then
    answer = "F"
  else
    redis.call("HSET", keyring, "k" .. id, record)
    tell("key_created")
  end
end
return tag .. answer
