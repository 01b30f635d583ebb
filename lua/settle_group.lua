-- Settle many leases of one chain in one call, in the order in which the reports came: what
-- settle would do for one after another, as far as they are ordinary (lib/settled). Whoever
-- called asks settle for the rest.
--
-- KEYS    as for acquire_group
-- ARGV    the policy of each scope; that of the breaker; last, the reports one behind the other,
--         each as for settle, without readings
-- returns the tag of the first report, and a letter for each as settle has them, up to the first
--         that is not settled: G, or g while somebody waits in this pool; then the lease of each
--         (lib/lease)

-- @include lib/clock
-- @include lib/success
-- @include lib/fast
-- @include lib/settled

-- @include lib/layout
-- @include lib/bucket
-- @include lib/lease

local reports, scopes = ARGV[#ARGV], #ARGV - 2
local limits = 0
for scope = 1, scopes do
  limits = limits + struct.unpack("<d", ARGV[scope], 8 * COUNT - 7)
end
local size = 8 * (REPORTED + limits)
local tag, first = string.sub(reports, 1, 8), #KEYS - #reports / size + 1
local texts, wall, place = redis.call("MGET", unpack(KEYS)), now_us(), first - 4
local count, leases = settle_at_once(texts, scopes, place, reports, size, first, wall)
if count == 0 then
  return { tag }
end
local letter = texts[first - 1] and "g" or "G"
return { tag .. string.rep(letter, count), unpack(leases, 1, count) }
