-- Charge what a replica has granted while it could not reach the store, once, whether there
-- is room or not.
--
-- KEYS    as for acquire, without the breaker's: the scopes, strings; the slots of their
--         concurrency limits, sorted sets; the lease, a string
-- ARGV    the policy of each scope; last, the request as it stands in a lease (the amount for
--         each limit is what was reserved), then for each limit what it is charged now, which
--         is less where time has given it back, or was less in use; then, of a lease that was
--         settled meanwhile, what moved on each limit
-- returns the nonce, a letter, a body:
--         G charged, R known already, however it was granted: the lease (lib/lease)
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
-- @include lib/holding
-- @include lib/granting

local texts = redis.call("MGET", unpack(KEYS))
local request, known, scopes = ARGV[#ARGV], texts[#KEYS], #ARGV - 1
local tag = string.sub(request, 1, 8)
if known then
  return tag .. "R" .. known
end

local ask, wall = numbers(request), now_us()
local head = CHARGES + ask[LIMITS]
local moved = head + ask[LIMITS]
local settled = #ask - 1 > moved
local nothing = setmetatable({}, { __index = function() return 0 end })
if survey(texts, scopes, nothing, 0, wall) == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end

local i = head
each_limit(function(q, p, s, at)
  i = i + 1
  local window = windows[q[p]]
  if ask[i] > 0 then
    charge(q, p, s, at, ask[i])
    if window and window.hold then
      window.hold(q, p, s[TIME], ask[1], ask[TTL])
    end
  end
end)
ask[SETTLED] = settled and wall or 0
local lease = save_all(text_of(ask, 1, head), wall)
if settled then
  lease = lease .. text_of(ask, moved + 1, moved + ask[LIMITS])
end
return tag .. "G" .. save_lease(KEYS[#KEYS], lease, ask)
