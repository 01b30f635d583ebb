-- What an acquire would answer; changes nothing.
--
-- KEYS    the scopes and the slots, as for acquire; no lease
-- ARGV    the policy of each scope; last, the question: tag, the amount for each limit
-- returns the tag, a letter, a body:
--         G would be granted, D would be denied: number of the binding limit or 0, time
--           to wait (-1 never), the states
--         B boundaries stale: the server's time

-- @include lib/clock
-- @include lib/layout
-- @include lib/bucket
-- @include lib/sliding
-- @include lib/calendar
-- @include lib/concurrency
-- @include lib/scope
-- @include lib/limits
-- @include lib/answer

local texts, ask, wall = redis.call("MGET", unpack(KEYS)), numbers(ARGV[#ARGV]), now_us()
local tag = string.sub(ARGV[#ARGV], 1, 8)
local worst, wait = survey(texts, #ARGV - 1, ask, 1, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end
local verdict = worst == 0 and "G" or "D"
return tag .. verdict .. struct.pack("<dd", worst, wait) .. texts_of_states()
