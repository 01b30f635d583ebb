-- Replace what a lease reserved by what was really used, once.
--
-- KEYS    as for acquire
-- ARGV    the policy of each scope as it is now; that of the breaker; last, the report:
--         tag, nonce of the lease, 1 for a first token (nothing moves) or 0 and 2 more where
--         readings follow, class of the outcome (lib/breaker), its kind, whether it was slow,
--         Retry-After or 0, the amount used for each limit of the policy (-1: as reserved);
--         then readings (lib/learning)
-- returns the tag, a letter, a body:
--         G settled or noted, g the same while somebody waits in this pool, A already settled:
--           the lease (lib/lease)
--         X expired, U unknown: nothing
--         B boundaries stale: the server's time

-- @include lib/clock
-- @include lib/settling

local wall = now_us()
-- @include lib/settle_any
