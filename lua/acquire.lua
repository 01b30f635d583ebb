-- Take from every limit of the chain, or from none; never past somebody who waits.
--
-- KEYS    the scopes, strings; the slots of their concurrency limits, sorted sets; the
--         circuit of the model, a string; the pin of the pool, a string; the events of the
--         pool, a stream; the lease, a string; the queue, a string
-- ARGV    the policy of each scope; that of the breaker; last, the request as it stands in
--         a lease: nonce, fingerprint, time to live, time to remember, 0, 0, 1, marks,
--         number of limits, the amount for each
-- returns the nonce, a letter, a body:
--         G granted, R repeated: the lease (lib/lease)
--         C conflict: the request id was used with other parameters; nothing
--         D denied: number of the binding limit, time to wait (-1 never), the states
--         P the breaker does not let it pass: why (lib/breaker), time to wait (-1 nobody
--           knows), what the pool is latched by
--         Q somebody waits in this pool: enqueue decides; nothing
--         B boundaries stale: the server's time

-- @include lib/clock
-- @include lib/earning
-- @include lib/calm

-- @include lib/acquire_known

-- @include lib/acquiring

local wall = now_us()
-- @include lib/acquire_any
