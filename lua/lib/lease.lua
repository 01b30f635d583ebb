-- The lease of one request: what it holds and what was answered, so that the same
-- request charges once and settles once (lib/layout for the encoding):
--
--   nonce, fingerprint of the request, time to live, time to remember it afterwards,
--   time that it waited in the queue, wall time of the settle or 0, number of limits, the
--   charge of each (-1: a shadow had no room); the states of the scopes just after the
--   grant; once settled, what moved on each limit
local TTL, REMEMBER, WAITED, SETTLED, LIMITS, CHARGES = 3, 4, 5, 6, 7, 7
