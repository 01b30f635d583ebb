-- The live state of every limit of a chain; changes nothing.
--
-- KEYS    the scopes and the slots, as for acquire; no lease
-- ARGV    the policy of each scope; last, a tag
-- returns the tag, a letter, a body:
--         G the server's time, the states
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

local texts, wall, tag = redis.call("MGET", unpack(KEYS)), now_us(), ARGV[#ARGV]
local nothing = setmetatable({}, { __index = function() return 0 end })
local time = struct.pack("<d", wall)
if survey(texts, #ARGV - 1, nothing, 0, wall) == STALE then
  return tag .. "B" .. time
end
return tag .. "G" .. time .. texts_of_states()
