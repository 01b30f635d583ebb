-- A replica's sign of life, and what operators have ordered.
--
-- KEYS    the orders, a string; the replicas, a sorted set; the cards, a hash
-- ARGV    tag, for how long the replica counts as alive (0: it leaves, -1: nothing changes, and
--         the replicas are listed); its name; its card
-- returns the tag, G, msgpack: the server's time; the orders in force: name, until, since,
--         value, actor, reason; the replicas: name, alive until, card

-- @include lib/clock
-- @include lib/orders

local key, replicas, cards = KEYS[1], KEYS[2], KEYS[3]
local name, card, now = ARGV[2], ARGV[3], now_us()
local _, life = struct.unpack("<dd", ARGV[1])
local wall, found, alive = string.format("%.0f", now), {}, {}

if life >= 0 then
  for _, gone in ipairs(redis.call("ZRANGEBYSCORE", replicas, "-inf", wall)) do
    redis.call("ZREM", replicas, gone)
    redis.call("HDEL", cards, gone)
  end
  if life > 0 then
    redis.call("ZADD", replicas, string.format("%.0f", now + life), name)
    redis.call("HSET", cards, name, card)
    redis.call("PEXPIRE", replicas, 60000)
    redis.call("PEXPIRE", cards, 60000)
  else
    redis.call("ZREM", replicas, name)
    redis.call("HDEL", cards, name)
  end
else
  local listed = redis.call("ZRANGEBYSCORE", replicas, "(" .. wall, "+inf", "WITHSCORES")
  for i = 1, #listed, 2 do
    local told = redis.call("HGET", cards, listed[i])
    alive[#alive + 1] = { listed[i], tonumber(listed[i + 1]), told or "" }
  end
end

for what, order in pairs(orders_of(redis.call("GET", key), now).n) do
  found[#found + 1] = { what, order[1], order[2], order[3], order[4], order[5] }
end
return string.sub(ARGV[1], 1, 8) .. "G" .. cmsgpack.pack({ now, found, alive })
