-- Order something of replicas, or take it back; tell what has happened to them.
--
-- KEYS    the orders, a string; the events of the fleet, a stream
-- ARGV    the order: tag, for how long (-1: until it is taken back, 0: it is taken back now,
--         -2: there is none, only the event counts), whether messages are sharded; its name;
--         its value; who orders it, and why; the channel of the fleet; msgpack: the fields of
--         the event, names and values by turns, none: there is none
-- returns the tag, G

-- @include lib/clock
-- @include lib/orders
-- @include lib/events

local key, stream = KEYS[1], KEYS[2]
local order, name, value, actor, why = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local tag, life, sharded = struct.unpack("<ddd", order)
local channel, event, wall = ARGV[6], cmsgpack.unpack(ARGV[7]), now_us()
local known, answer = orders_of(redis.call("GET", key), wall), string.sub(order, 1, 8) .. "G"

for _, each in ipairs(known.t) do
  if each == tag then -- this very call, whose answer was lost
    return answer
  end
end
table.insert(known.t, 1, tag)
known.t[MOST_TAGS + 1] = nil

if life > -2 then
  local before = known.n[name]
  if #event > 0 then
    event[#event + 1], event[#event + 2] = "from", before and before[3] or "none"
    event[#event + 1], event[#event + 2] = "to", life ~= 0 and value or "none"
  end
  local till = life < 0 and -1 or wall + life
  known.n[name] = life ~= 0 and { till, wall, value, actor, why } or nil
end
save_orders(key, known, wall)
if #event > 0 then
  publish({ event }, stream, "*", wall)
end
-- A hint: replicas look by themselves, too.
redis.pcall(sharded == 1 and "SPUBLISH" or "PUBLISH", channel, name)
return answer
