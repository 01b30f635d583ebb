-- Replace what a lease reserved by what was really used, once.
--
-- KEYS    as for acquire
-- ARGV    the policy of each scope as it is now; last, the report: tag, nonce of the
--         lease, the amount used for each limit of the policy (-1: as reserved)
-- returns the tag, a letter, a body:
--         G settled, g the same while somebody waits in this pool, A already settled:
--           the lease (lib/lease)
--         X expired, U unknown: nothing
--         B boundaries stale: the server's time

-- @include lib/clock
-- @include lib/layout
-- @include lib/bucket
-- @include lib/sliding
-- @include lib/calendar
-- @include lib/concurrency
-- @include lib/scope
-- @include lib/limits
-- @include lib/lease
-- @include lib/holding

local texts = redis.call("MGET", unpack(KEYS))
local report, scopes, wall = numbers(ARGV[#ARGV]), #ARGV - 1, now_us()
local tag = string.sub(ARGV[#ARGV], 1, 8)
local lease, why, nth, held = open_lease(texts[#KEYS - 1], report[2], wall)
if not lease then
  return tag .. why
end

if survey(texts, scopes, report, 2, wall) == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end

settle_lease(lease, nth, held, report, 2)
save_all("", wall)
lease[SETTLED] = wall
local text = text_of(lease, 1, #lease)
redis.call("SET", KEYS[#KEYS - 1], text, "PX", math.ceil(lease[REMEMBER] / 1000))
return tag .. (texts[#KEYS] and "g" or "G") .. text
