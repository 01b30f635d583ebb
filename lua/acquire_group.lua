-- Take for many requests of one chain in one call, in the order in which they came, each from
-- every limit or from none: what acquire would do for one after another, as far as they are
-- ordinary (lib/granted). Whoever called asks acquire for the rest.
--
-- KEYS    the scopes, strings; the circuit of the model, a string; the pin of the pool, a
--         string; the events of the pool, a stream; the queue, a string; last, for each request
--         the lease, a string
-- ARGV    the policy of each scope; that of the breaker; last, the requests one behind the
--         other, each as for acquire
-- returns the nonce of the first request, and a letter for each as acquire has them, up to the
--         first that is not granted (G), repeated (R) or in conflict (C); then the lease of each
--         (lib/lease), empty in a conflict

-- @include lib/clock
-- @include lib/calm
-- @include lib/fast
-- @include lib/granted

-- @include lib/layout
-- @include lib/bucket
-- @include lib/lease

local requests, scopes = ARGV[#ARGV], #ARGV - 2
local size = 8 * (CHARGES + struct.unpack("<d", requests, 8 * LIMITS - 7))
local tag, first = string.sub(requests, 1, 8), #KEYS - #requests / size + 1
local texts = redis.call("MGET", unpack(KEYS, 1, first - 1))
if texts[first - 1] then
  return { tag }
elseif redis.call("EXISTS", unpack(KEYS, first)) > 0 then -- seldom, and told by one number
  texts = redis.call("MGET", unpack(KEYS))
end

local wall = now_us()
local place = first - 4
local count, leases, letters = grant_at_once(texts, scopes, place, requests, size, first, wall)
if count == 0 then
  return { tag }
end
local told = string.rep("G", count)
for n, letter in pairs(letters or {}) do
  told = string.sub(told, 1, n - 1) .. letter .. string.sub(told, n + 1)
end
return { tag .. told, unpack(leases, 1, count) }
