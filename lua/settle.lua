-- Replace what a lease reserved by what was really used, once.
--
-- KEYS    as for acquire
-- ARGV    the policy of each scope as it is now; last, the report: tag, nonce of the
--         lease, the amount used for each limit of the policy (-1: as reserved)
-- returns the tag, a letter, a body:
--         G settled, A already settled: the lease (lib/lease)
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
local lease, why, nth, held = open_lease(texts[#KEYS], report[2], wall)
if not lease then
  return tag .. why
end

if survey(texts, scopes, report, 2, wall) == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end

local last, i = #lease, 2
for nothing = 1, lease[LIMITS] do
  lease[last + nothing] = 0
end
each_limit(function(q, p, s, at)
  i = i + 1
  local n, used = nth[q[p + 1]], report[i]
  local charged = n and lease[CHARGES + n]
  if n and charged >= 0 then
    if used >= 0 then
      lease[last + n] = charge(q, p, s, at, used - charged, lease, held[q[p + 1]])
    end
    local window = windows[q[p]]
    if window and window.release then
      window.release(q, p, s, at, lease[1])
    end
  end
end)

save_all("", wall)
lease[SETTLED] = wall
local text = text_of(lease, 1, last + lease[LIMITS])
redis.call("SET", KEYS[#KEYS], text, "PX", math.ceil(lease[REMEMBER] / 1000))
return tag .. "G" .. text
