-- What is ordinary is decided without building what decides over everything else, which costs
-- more than the decision: limits that are enforced buckets, in states that their policies know,
-- under a circuit and a pin that are calm (lib/calm). lib/granted and lib/settled do with them
-- what lib/limits, lib/granting and lib/holding do, for many calls of one chain as one after
-- another would have it done at the same moment: states are read and written once. Whoever
-- meets anything else leaves it to those.
--
-- Of the policies of a chain the service sends what is needed (store/ordinary):
--
--   number of scopes, number of limits, whether there is a breaker; of its policy the share of
--   retries, what the retry budget holds without first attempts, its memory, the life of a state
--   and the width of a bucket; then per scope the version, the least time to keep the state and
--   the number of limits; per limit capacity and units per microsecond; behind the last scope as
--   many zeros as it has fewer numbers than a scope of four limits
--
-- What a decision costs is calls of the server, functions and tables that are built, and strings,
-- each of which is hashed byte by byte. Hence lib/few, and no text that nobody needs.
local TERMS_OF_SCOPES, REPORTED = 9, 7
local call, unpacked, packed, sub = redis.call, struct.unpack, struct.pack, string.sub
local keys = KEYS
local scopes, limits, gated, ratio, most, memory, life, span_of_bucket, version, least, own, c1,
  r1, c2, r2, c3, r3, c4, r4
local of_state, of_asked -- how the state of lib/few and a request are packed
-- The pin that was looked at under these terms, its time, and what the retry budget holds.
local known_pin, pin_time, balance
local known_for, expiry = 0, nil -- the last lease; the same in milliseconds
-- Of a chain of several scopes where each is in KEYS, what is to be written, and for how many
-- milliseconds it is to be kept, or false.
local places, to_write, to_keep = nil, nil, nil
-- In a call about several chains, by circuit: the generation of those that let pass, and the
-- successes of those in which they are counted, which are written when all is decided.
local passed, watches = nil, nil
local SETTLE = "<c40dc0c0" -- a lease up to SETTLED, the time, the rest of the lease, what has moved
local DOUBLES = "<dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
