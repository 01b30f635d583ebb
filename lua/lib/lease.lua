-- The lease of one request: what it holds and what was answered, so that the same
-- request charges once and settles once (lib/layout for the encoding):
--
--   nonce, fingerprint of the request, time to live, time to remember it afterwards,
--   time that it waited in the queue, wall time of the settle or 0, generation of the
--   circuit that let it pass, marks, number of limits, the charge of each (-1: a shadow had
--   no room); the states of the scopes just after the grant; once settled, what moved on
--   each limit
--
-- Marks are the worker's bit (0 to 31), 32 for a probe, 64 once its first token was
-- reported, 128 times the state of the circuit, 512 for a retry, 1024 times what the report
-- was taken for: 1 counted, 2 the vote of a probe, 3 stale, 4 of a probe whose time was over,
-- 5 ignored.
--
-- A block (lend) waits for nothing: there stand its calls times REPORTS, and the number of the
-- last report that was taken in.
local TTL, REMEMBER, WAITED, SETTLED, EPOCH, MARKS, LIMITS, CHARGES = 3, 4, 5, 6, 7, 8, 9, 9
local REPORTS = 65536
