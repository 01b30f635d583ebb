-- Serve waiters from the front: grant what fits, in fair order, without letting anybody
-- pass who needs what an earlier one is short of.
--
-- KEYS    the scopes, strings; the slots of their concurrency limits, sorted sets; each the
--         circuit of a model, a string; the pin of the pool, a string; the events of the
--         pool, a stream; no lease; then the queue as for enqueue
-- ARGV    the policy of each scope; that of the breaker of each circuit; the head: tag,
--         replica, most grants, how long a caller
--         may be out of sight, how long a grant waits to be fetched, time to keep the queue
--         in milliseconds, whether messages are sharded, number of circuits, number of
--         chains, then for each its shape, which circuit is its model's, number of scopes,
--         and for each scope its place in KEYS and its level
--         (1 pool, 2 model, 3 tenant); the ids of the chains in a row: model and tenant; the
--         channel for messages; last, the ids of tenants that have room again, in a row
-- returns the tag and a letter, G served, E nobody waits; or B boundaries stale: the server's
--         time. After G and E: the time until the next pass (-1 not known), whether more can
--         be granted at once, waiters, grants of this pass, grants not fetched; the digests
--         that callers of this replica ask again for, in a row; the names of chains that
--         are needed; the digests and names of grants that nobody has fetched; models whose
--         circuits are waited for and how long, in a row

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
-- @include lib/granting
-- @include lib/shortage
-- @include lib/waiting
-- @include lib/queue
-- @include lib/serving

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/earning
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local head = all(ARGV[#ARGV - 3])
local wall, replica = now_us(), head[2]
local tag, circuits = string.sub(ARGV[#ARGV - 3], 1, 8), head[8]
local scopes, pin_at = #ARGV - 4 - circuits, #KEYS - 8

if redis.call("EXISTS", queue) == 0 then
  return { tag .. "E", struct.pack("<ddddd", -1, 0, 0, 0, 0), "", {}, {}, "" }
end
local texts = redis.call("MGET", unpack(KEYS, 1, pin_at))
local gates, breaker = {}, breaker_of()
for n = 1, circuits do
  local at = pin_at - circuits + n - 1
  gates[n] = breaker.open(ARGV[scopes + n], at, texts[at], pin_at, texts[pin_at], wall)
end

local chains, at = {}, 9
for n = 1, head[9] do
  local chain = { shape = head[at + 1], gate = gates[head[at + 2]], scopes = {}, levels = {} }
  local count = head[at + 3]
  at = at + 3
  for i = 1, count do
    local scope, level = head[at + 1], head[at + 2]
    chain.scopes[i], chain.levels[i] = scope, level
    if level == 2 and chain.gate.c then
      slow[scope] = breaker.slowed(chain.gate)
    end
    at = at + 2
  end
  chains[string.sub(ARGV[#ARGV - 2], 16 * n - 15, 16 * n)] = chain
end

local nothing = setmetatable({}, { __index = function() return 0 end })
if survey(texts, scopes, nothing, 0, wall) == STALE then
  return { tag .. "B", struct.pack("<d", wall) }
end
begin_anew(wall)
redis.call("HSET", book, "r" .. struct.pack("<d", replica), struct.pack("<d", wall))

local pass = serve(breaker, open_queue(), chains, wall, head[3], head[4], head[5], ARGV[#ARGV])

-- Who should ask, after this and earlier passes, and which grants nobody has asked for.
local mine, overdue = {}, {}
for _, digest in ipairs(pass.again[replica] or {}) do
  mine[#mine + 1] = digest
end
local waiting = redis.call("ZRANGE", grants, 0, 511, "WITHSCORES")
for i = 1, #waiting, 2 do
  local digest, holder = string.sub(waiting[i], 1, DIGEST), string.sub(waiting[i], DIGEST + 1)
  local due = tonumber(waiting[i + 1])
  if due > wall + head[5] then -- the clock has stepped back, and nobody waits for it
    redis.call("ZADD", grants, wall + head[5], waiting[i])
  end
  if wall >= due then
    local t, _, _, its_names = open_ticket(digest)
    if t and t[STATE] == 1 then
      overdue[#overdue + 1] = digest .. its_names
    else
      redis.call("HDEL", tickets, digest)
      redis.call("ZREM", grants, waiting[i])
    end
  elseif struct.unpack("<d", holder) == replica then
    mine[#mine + 1] = digest
  end
end

-- A hint for the other replicas: when to look again, and for whom. Asking again is the
-- guarantee.
if pass.said ~= "" then
  local command = head[7] == 1 and "SPUBLISH" or "PUBLISH"
  redis.pcall(command, ARGV[#ARGV - 1], struct.pack("<d", pass.due) .. pass.said)
end
for n = 1, circuits do
  breaker.close(gates[n], wall)
end
breaker.close_pin(gates[1])
close_queue(pass.q, head[6])
local more, unfetched = pass.more and 1 or 0, redis.call("ZCARD", grants)
local figures = struct.pack("<ddddd", pass.due, more, pass.q[WAITERS], pass.granted, unfetched)
return { tag .. "G", figures, table.concat(mine), pass.missing, overdue, pass.paused }
