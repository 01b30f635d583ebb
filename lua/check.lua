-- What an acquire would answer; changes nothing.
--
-- KEYS    the scopes, the slots and the breaker's, as for acquire; no lease
-- ARGV    the policy of each scope; that of the breaker; last, the question: tag, which
--         attempt it is, the amount for each limit
-- returns the tag, a letter, a body:
--         G would be granted, D would be denied: number of the binding limit or 0, time
--           to wait (-1 never), why the breaker would not let it pass or 0, time to wait for
--           that, state of the circuit, the states
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
-- @include lib/answer

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/earning
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local texts, ask, wall = redis.call("MGET", unpack(KEYS)), numbers(ARGV[#ARGV]), now_us()
local tag, scopes, place = string.sub(ARGV[#ARGV], 1, 8), #ARGV - 2, #KEYS - 2
local breaker = breaker_of()
local g = breaker.at(place, texts, ARGV[scopes + 1], wall)
local why, pause = breaker.ask(g, ask[2], 0.5)
if g.c then
  slow[g.q[Q_PLACE]] = breaker.slowed(g)
end
local worst, wait = survey(texts, scopes, ask, 2, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end
local verdict = worst == 0 and why == PASS and "G" or "D"
local head = struct.pack("<ddddd", worst, wait, why, pause, breaker.state(g))
return tag .. verdict .. head .. texts_of_states()
