-- Take in what a provider has said to a call without a lease.
--
-- KEYS    the scopes, the slots and the breaker's, as for acquire; no lease
-- ARGV    the policy of each scope; that of the breaker; last, the report: tag, class of
--         the outcome (lib/breaker), Retry-After or 0; readings (lib/learning)
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

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/earning
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local function learning_of()
-- @include lib/events
-- @include lib/learning
end

local texts, report, wall = redis.call("MGET", unpack(KEYS)), numbers(ARGV[#ARGV]), now_us()
local tag, scopes, place = string.sub(ARGV[#ARGV], 1, 8), #ARGV - 2, #KEYS - 2
local breaker = breaker_of()
local g = breaker.at(place, texts, ARGV[scopes + 1], wall, true)
if g.c then
  slow[g.q[Q_PLACE]] = breaker.slowed(g)
end
local nothing = setmetatable({}, { __index = function() return 0 end })
if survey(texts, scopes, nothing, 0, wall) == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end

local learning = learning_of()
local readings, model = learning.readings(report, 4, ARGV[#ARGV])
local events = learning.learn(readings)
if #readings > 0 then
  save_all("", wall)
end
learning.publish(events, KEYS[#KEYS], model, wall)
if g.c and report[2] == THROTTLE and report[3] > 0 then
  -- No call of ours: it has no generation and no vote, but the pause is everybody's.
  breaker.tell(g, { class = report[2], generation = -1, retry_after = report[3] }, 0.5, wall)
end
return tag .. "G" .. struct.pack("<d", #events) .. texts_of_states()
