-- Serve waiters from the front: grant what fits, in fair order, without letting anybody
-- pass who needs what an earlier one is short of.
--
-- KEYS    the scopes, strings; the slots of their concurrency limits, sorted sets; no
--         lease; then the queue as for enqueue
-- ARGV    the policy of each scope; the head: tag, replica, most grants, how long a caller
--         may be out of sight, how long a grant waits to be fetched, time to keep the queue
--         in milliseconds, whether messages are sharded, number of chains, then for each
--         its shape, number of scopes, and for each scope its place in KEYS and its level
--         (1 pool, 2 model, 3 tenant); the ids of the chains in a row: model and tenant; the
--         channel for messages; last, the ids of tenants that have room again, in a row
-- returns the tag and a letter, G served, E nobody waits; or B boundaries stale: the server's
--         time. After G and E: the time until the next pass (-1 not known), whether more can
--         be granted at once, waiters, grants of this pass; the digests that callers of
--         this replica ask again for, in a row; the names of chains that are needed; the
--         digests and names of grants that nobody has fetched

-- @include lib/clock
-- @include lib/layout
-- @include lib/bucket
-- @include lib/sliding
-- @include lib/calendar
-- @include lib/concurrency
-- @include lib/scope
-- @include lib/limits
-- @include lib/lease
-- @include lib/granting
-- @include lib/shortage
-- @include lib/waiting
-- @include lib/queue
-- @include lib/serving

local scopes = #ARGV - 4
local head = all(ARGV[scopes + 1])
local wall, replica = now_us(), head[2]
local tag = string.sub(ARGV[scopes + 1], 1, 8)

if redis.call("EXISTS", queue) == 0 then
  return { tag .. "E", struct.pack("<dddd", -1, 0, 0, 0), "", {}, {} }
end
local texts = scopes > 0 and redis.call("MGET", unpack(KEYS, 1, scopes)) or {}
local nothing = setmetatable({}, { __index = function() return 0 end })
if survey(texts, scopes, nothing, 0, wall) == STALE then
  return { tag .. "B", struct.pack("<d", wall) }
end
redis.call("HSET", book, "r" .. struct.pack("<d", replica), struct.pack("<d", wall))

local chains, at = {}, 8
for n = 1, head[8] do
  local chain = { shape = head[at + 1], scopes = {}, levels = {} }
  local count = head[at + 2]
  at = at + 2
  for i = 1, count do
    chain.scopes[i], chain.levels[i] = head[at + 1], head[at + 2]
    at = at + 2
  end
  chains[string.sub(ARGV[scopes + 2], 16 * n - 15, 16 * n)] = chain
end

local pass = serve(open_queue(), chains, wall, head[3], head[4], head[5], ARGV[scopes + 4])

-- Grants of this and earlier passes: who should ask, and what nobody has asked for.
local mine, overdue = {}, {}
for _, digest in ipairs(pass.again[replica] or {}) do
  mine[#mine + 1] = digest
end
local waiting = redis.call("ZRANGE", grants, 0, 511, "WITHSCORES")
for i = 1, #waiting, 2 do
  local digest, holder = string.sub(waiting[i], 1, DIGEST), string.sub(waiting[i], DIGEST + 1)
  if wall >= tonumber(waiting[i + 1]) then
    local _, _, _, names = open_ticket(digest)
    overdue[#overdue + 1] = digest .. (names or "")
  elseif struct.unpack("<d", holder) == replica then
    mine[#mine + 1] = digest
  end
end

-- A hint for the other replicas: when to look again, and for whom. Asking again is the
-- guarantee.
if pass.said ~= "" then
  local command = head[7] == 1 and "SPUBLISH" or "PUBLISH"
  redis.pcall(command, ARGV[scopes + 3], struct.pack("<d", pass.due) .. pass.said)
end
close_queue(pass.q, head[6])
local figures = struct.pack("<dddd", pass.due, pass.more and 1 or 0, pass.q[WAITERS], pass.granted)
return { tag .. "G", figures, table.concat(mine), pass.missing, overdue }
