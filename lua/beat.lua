-- Say that a replica lives, and see who else does.
--
-- KEYS    the replicas, a sorted set; the events of the pool, a stream
-- ARGV    the report: tag, name of the replica, 1 to be seen, 0 to try whether the store
--         writes, -1 to leave, how long a silent replica still counts, a time; then the words
--         of an event in pairs, if there is something to tell
-- returns the tag, the letter G, a body: the server's time, how many replicas count, when the
--         one was seen that has been silent for longest, how many were seen after the time of
--         the report

-- @include lib/clock
-- @include lib/layout
-- @include lib/numbers
-- @include lib/events

local told, wall = numbers(ARGV[1]), now_us()
local name, mode, silent, since = string.format("%.0f", told[2]), told[3], told[4], told[5]
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", string.format("(%.0f", wall - silent))
if mode > 0 then
  redis.call("ZADD", KEYS[1], string.format("%.0f", wall), name)
elseif mode < 0 then
  redis.call("ZREM", KEYS[1], name)
else
  -- A store that is full, or a replica of one, answers everything but this.
  local seen = redis.call("ZSCORE", KEYS[1], name)
  redis.call("ZADD", KEYS[1], seen or string.format("%.0f", wall - silent), name)
end
redis.call("PEXPIRE", KEYS[1], math.ceil(silent / 1000) + 60000)
if #ARGV > 1 then
  publish({ { unpack(ARGV, 3) } }, KEYS[2], ARGV[2], wall)
end
local first = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
local after = string.format("(%.0f", since)
return string.sub(ARGV[1], 1, 8)
  .. "G"
  .. struct.pack(
    "<dddd",
    wall,
    redis.call("ZCARD", KEYS[1]),
    first[2] or wall,
    redis.call("ZCOUNT", KEYS[1], after, "+inf")
  )
