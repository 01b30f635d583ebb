-- Settle leases of several chains of one pool: for one chain after another what settle_group does
-- for those of one. Whoever called asks settle for the rest.
--
-- KEYS    as for acquire_mixed
-- ARGV    the plan (lib/mixed); what the policies say of ordinary calls (lib/ordinary), each once;
--         for each chain the reports one behind the other, each as for settle, without readings
-- returns for each chain what settle_group answers

-- @include lib/clock
-- @include lib/layout
-- @include lib/lease
-- @include lib/ordinary
-- @include lib/success
-- @include lib/mixed

local texts, wall = call("MGET", unpack(keys, 1, first + calls)), now_us()
local pin, queued, known = texts[first - 1], texts[first], {}

local function decide_chain()
-- @include lib/settle_ordinary
end

watches = {}
-- @include lib/in_turn
for key, watched in pairs(watches) do
  save_successes(key, watched)
end
return replies
