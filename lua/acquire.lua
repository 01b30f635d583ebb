-- Take from every limit of the chain, or from none; never past somebody who waits.
--
-- KEYS    the scopes, strings; the slots of their concurrency limits, sorted sets;
--         the lease, a string; the queue, a string
-- ARGV    the policy of each scope; last, the request as it stands in a lease: nonce,
--         fingerprint, time to live, time to remember, 0, 0, number of limits, the
--         amount for each
-- returns the nonce, a letter, a body:
--         G granted, R repeated: the lease (lib/lease)
--         C conflict: the request id was used with other parameters; nothing
--         D denied: number of the binding limit, time to wait (-1 never), the states
--         Q somebody waits in this pool: enqueue decides; nothing
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
-- @include lib/granting
-- @include lib/answer

local texts = redis.call("MGET", unpack(KEYS))
local request, known, scopes = ARGV[#ARGV], texts[#KEYS - 1], #ARGV - 1
local tag = string.sub(request, 1, 8)
if known then
  local same = string.sub(known, 9, 16) == string.sub(request, 9, 16)
  return tag .. (same and "R" .. known or "C")
elseif texts[#KEYS] then
  return tag .. "Q"
end

local ask, wall = numbers(request), now_us()
local worst, wait, refused = survey(texts, scopes, ask, CHARGES, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
elseif worst > 0 then
  return tag .. "D" .. struct.pack("<dd", worst, wait) .. texts_of_states()
end

local last = take(scopes, ask, refused)
if refused then
  request = text_of(ask, 1, last)
end
return tag .. "G" .. save_lease(KEYS[#KEYS - 1], save_all(request, wall), ask)
