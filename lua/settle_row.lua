-- Settle for calls of a pool that are not ordinary, one after the other: what settle does for
-- each, at the same moment. To build what decides costs as much as a part of the decision.
--
-- KEYS    the queue, a string; the scopes, strings; the slots of their concurrency limits, sorted
--         sets; the circuit of each model, a string; the pin of the pool, a string; the events of
--         the pool, a stream, all once; then for each call the lease, a string
-- ARGV    the plan (lib/row); policies of scopes and breakers, each once; then for each call its
--         report as for settle
-- returns for each call what settle returns

local all_keys, all_arguments, KEYS, ARGV = KEYS, ARGV, nil, nil

-- @include lib/clock
-- @include lib/settling

local function decide(wall)
-- @include lib/afresh
-- @include lib/settle_any
end

-- @include lib/row
