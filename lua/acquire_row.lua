-- Take for calls of a pool that are not ordinary, one after the other: what acquire does for
-- each, at the same moment. To build what decides costs as much as a part of the decision.
--
-- KEYS    the queue, a string; the scopes, strings; the slots of their concurrency limits, sorted
--         sets; the circuit of each model, a string; the pin of the pool, a string; the events of
--         the pool, a stream, all once; then for each call the lease, a string
-- ARGV    the plan (lib/row); policies of scopes and breakers, each once; then for each call its
--         request as for acquire
-- returns for each call what acquire returns

local all_keys, all_arguments, KEYS, ARGV = KEYS, ARGV, nil, nil

-- @include lib/clock
-- @include lib/earning
-- @include lib/calm
-- @include lib/acquiring

local function decide(wall)
-- @include lib/afresh
-- @include lib/acquire_known
-- @include lib/acquire_any
end

-- @include lib/row
