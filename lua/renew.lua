-- Keep a lease alive, and charge what a long stream has used beyond its reservation.
--
-- KEYS    as for acquire
-- ARGV    the policy of each scope as it is now; that of the breaker; last, the report:
--         tag, nonce of the lease, time to live from now, the amount used so far for each
--         limit of the policy (-1: not known)
-- returns as settle; G renewed, and behind the lease what this has moved on each of its limits,
--         which the lease itself does not keep

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
-- @include lib/holding

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/earning
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local texts = redis.call("MGET", unpack(KEYS))
local report, scopes, wall = numbers(ARGV[#ARGV]), #ARGV - 2, now_us()
local tag = string.sub(ARGV[#ARGV], 1, 8)
local lease, granted, nth = open_lease(texts[#KEYS - 1], report[2], wall)
if not lease then
  return tag .. granted
end

local place = #KEYS - 4
local breaker = breaker_of()
local g = breaker.at(place, texts, ARGV[scopes + 1], wall)
if g.c then
  slow[g.q[Q_PLACE]] = breaker.slowed(g)
end
if survey(texts, scopes, report, 3, wall) == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end

local i, moved = 3, {}
for n = 1, lease[LIMITS] do
  moved[n] = 0
end
each_limit(function(q, p, s, at)
  i = i + 1
  local n, used = nth[q[p + 1]], report[i]
  local charged = n and lease[CHARGES + n]
  if n and charged >= 0 then
    if used > charged then
      moved[n] = charge(q, p, s, at, used - charged)
      lease[CHARGES + n] = used
    end
    local window = windows[q[p]]
    if window and window.hold then
      window.hold(q, p, s[TIME], lease[1], report[3])
    end
  end
end)

if g.c and math.floor(lease[MARKS] / 32) % 2 == 1 then
  breaker.renew_probe(g.c, g.q, g.now, lease[1])
  breaker.close(g, wall)
end
save_all("", wall)
lease[TTL] = wall - granted + report[3]
local text = text_of(lease, 1, #lease)
redis.call("SET", KEYS[#KEYS - 1], text, "PX", math.ceil((report[3] + lease[REMEMBER]) / 1000))
return tag .. "G" .. text .. text_of(moved, 1, #moved)
