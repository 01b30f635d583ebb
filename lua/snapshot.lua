-- The live state of every limit of a chain; changes nothing.
--
-- KEYS    the scopes, the slots and the breaker's, as for acquire; no lease
-- ARGV    the policy of each scope; that of the breaker; last, a tag
-- returns the tag, a letter, a body:
--         G the server's time, state of the circuit, the states; for each scope how many
--           numbers stand behind its state, and these
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

local texts, wall, tag = redis.call("MGET", unpack(KEYS)), now_us(), ARGV[#ARGV]
local nothing = setmetatable({}, { __index = function() return 0 end })
local time = struct.pack("<d", wall)
local scopes, place = #ARGV - 2, #KEYS - 2
local breaker = breaker_of()
local g = breaker.at(place, texts, ARGV[scopes + 1], wall)
if g.c then
  breaker.lift(g.c, g.now, g.events)
  slow[g.q[Q_PLACE]] = breaker.slowed(g)
end
if survey(texts, scopes, nothing, 0, wall) == STALE then
  return tag .. "B" .. time
end
local rest = ""
for scope = 1, #states do
  local aside = asides[scope] or ""
  rest = rest .. struct.pack("<d", #aside / 8) .. aside
end
return tag .. "G" .. time .. struct.pack("<d", breaker.state(g)) .. texts_of_states() .. rest
