-- Let a waiter go, or say that nobody holds its caller any more.
--
-- KEYS    as for enqueue
-- ARGV    the policy of each scope; that of the breaker; the report: tag, 0 to leave or 1
--         to let go of the caller, replica, time to keep the queue in milliseconds; last,
--         the digest of the request
-- returns the tag, a letter, nothing: G done, R it had been granted and the grant is given
--         back, A it has been granted and may be fetched, U nobody waits by that name, and
--         it has no lease; or B boundaries stale: the server's time

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
-- @include lib/waiting
-- @include lib/queue

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/earning
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local scopes, circuit = #ARGV - 3, #KEYS - 10
local report, digest, wall = all(ARGV[scopes + 2]), ARGV[scopes + 3], now_us()
local tag, letting_go, keep = string.sub(ARGV[scopes + 2], 1, 8), report[2] == 1, report[4]
local lease_key = KEYS[#KEYS - 7]
local t, text, id, names = open_ticket(digest)
if t and t[STATE] == 2 then
  redis.call("HDEL", tickets, digest)
  redis.call("ZREM", grants, digest .. struct.pack("<d", t[HOLDER]))
  close_queue(open_queue(), keep)
  return tag .. "U"
elseif not t then
  -- The grant may have been fetched for a caller who left in this very moment.
  text = not letting_go and redis.call("GET", lease_key)
  if not text then
    return tag .. "U"
  end
elseif t[STATE] == 0 then
  local q = open_queue()
  if not letting_go then
    local m = open_model(string.sub(id, 1, 8), q)
    leave(id, digest, t, text, q, m, wall)
    save_model(string.sub(id, 1, 8), m)
    close_queue(q, keep)
  elseif t[HOLDER] == report[3] then
    t[HOLDER], t[SEEN] = 0, wall
    save_ticket(digest, t, text, id, names)
  end
  return tag .. "G"
elseif letting_go then
  return tag .. "A"
end

-- Nobody has learned of the grant, so all of it comes back; of one that was not fetched also
-- when its time is over, since the same request may be granted again.
local texts = redis.call("MGET", unpack(KEYS, 1, circuit + 1))
local breaker = breaker_of()
local g = breaker.at(circuit, texts, ARGV[scopes + 1], wall)
if g.c then
  slow[g.q[Q_PLACE]] = breaker.slowed(g)
end
local nothing = setmetatable({}, { __index = function() return 0 end })
if survey(texts, scopes, nothing, 0, wall) == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end
local lease, _, nth, held = open_lease(text, struct.unpack("<d", text), t and 0 or wall)
if lease then
  settle_lease(lease, nth, held, nothing, 0)
  save_all("", wall)
  if g.c then
    local r = { class = NEUTRAL, generation = lease[EPOCH], token = lease[1], retry_after = 0 }
    breaker.tell(g, r, 0.5, wall)
  end
end
if t then
  redis.call("HDEL", tickets, digest)
  redis.call("ZREM", grants, digest .. struct.pack("<d", t[2]))
  close_queue(open_queue(), keep)
elseif lease then
  redis.call("UNLINK", lease_key)
end
return tag .. ((t or lease) and "R" or "U")
