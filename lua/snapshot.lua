-- The live state of every limit of a chain; changes nothing.
--
-- KEYS    the scopes and the slots, as for acquire; no lease
-- ARGV    the policy of each scope; last, a tag
-- returns the tag, a letter, a body:
--         G the server's time, the scopes
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

local texts, states, wall = redis.call("MGET", unpack(KEYS)), {}, now_us()
local nothing = setmetatable({}, { __index = function() return 0 end })
local stale = survey(texts, states, #ARGV - 1, nothing, 0, wall) == STALE
return ARGV[#ARGV] .. (stale and "B" or "G") .. struct.pack("<d", wall) .. (stale and "" or texts_of(states))
