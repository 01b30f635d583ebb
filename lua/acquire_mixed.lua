-- Take for calls of several chains of one pool: for one chain after another what acquire_group does
-- for the calls of one. Whoever called asks acquire for the rest.
--
-- KEYS    the scopes, strings, each once; the pin of the pool, a string; the queue, a string; for
--         each call the lease, a string, those of a chain together; last, the circuit of each
--         model, a string
-- ARGV    the plan (lib/mixed); what the policies say of ordinary calls (lib/ordinary), each once;
--         for each chain the requests one behind the other, each as for acquire
-- returns for each chain what acquire_group answers

-- @include lib/clock
-- @include lib/layout
-- @include lib/lease
-- @include lib/ordinary
-- @include lib/mixed

local texts, wall = call("MGET", unpack(keys, 1, first)), now_us()
local pin_key, pin, queued = keys[first - 1], texts[first - 1], texts[first]

local function decide_chain()
-- @include lib/acquire_ordinary
end

passed = {}
-- @include lib/in_turn
return replies
