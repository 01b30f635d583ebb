-- Hold a limit by hand, or let go of it.
--
-- KEYS    the scopes, the slots and the breaker's, as for acquire; no lease; the notice of who
--         holds the limit, a string
-- ARGV    the policy of each scope; that of the breaker; the order: tag, number of the limit
--         in the chain, the limit it is held to (0: let go), the capacity and the rate that
--         this means, for how long (-1: until cleared); its names: model, limit, who orders
--         it, and why, a line each; last, the notice
-- returns the tag, a letter, a body:
--         G done: how many events there were, the states
--         B boundaries stale: the server's time

-- @include lib/clock
-- @include lib/layout
-- @include lib/numbers
-- @include lib/bucket
-- @include lib/sliding
-- @include lib/calendar
-- @include lib/concurrency
-- @include lib/ramp
-- @include lib/windows
-- @include lib/learned
-- @include lib/scope
-- @include lib/limits
-- @include lib/lease
-- @include lib/answer

local function learning_of()
-- @include lib/events
-- @include lib/learning
end

local texts, wall, scopes = redis.call("MGET", unpack(KEYS)), now_us(), #ARGV - 4
local order, lines = ARGV[scopes + 2], string.gmatch(ARGV[scopes + 3], "[^\n]+")
local tag, nth, limit, capacity, rate, life = struct.unpack("<dddddd", order)
local nothing = setmetatable({}, { __index = function() return 0 end })
if survey(texts, scopes, nothing, 0, wall) == STALE then
  return string.sub(order, 1, 8) .. "B" .. struct.pack("<d", wall)
end

local learning, model = learning_of(), lines()
local events = learning.hold(nth, {
  tag = tag, limit = limit, capacity = capacity, rate = rate, life = life,
  name = lines(), actor = lines(), reason = lines(),
})
save_all("", wall)
learning.publish(events, KEYS[#KEYS - 1], model, wall)
if limit > 0 and life < 0 then
  redis.call("SET", KEYS[#KEYS], ARGV[#ARGV])
elseif limit > 0 then
  redis.call("SET", KEYS[#KEYS], ARGV[#ARGV], "PX", math.ceil(life / 1000) + 60000)
else
  redis.call("UNLINK", KEYS[#KEYS])
end
return string.sub(order, 1, 8) .. "G" .. struct.pack("<d", #events) .. texts_of_states()
