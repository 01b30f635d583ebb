-- Everything that scripts store, take and answer is an array of little-endian doubles:
-- one call decodes it, whole numbers are exact to 2^53, and a microsecond fits.
--
-- A scope is a pool, a model, a tenant, or a tenant on a model. The service sends its
-- policy with each call, and the store keeps its state:
--
--   policy  version, number of limits, least time to keep the state, fill of a limit
--           without state, what stands in KEYS before its slots, how its limits learn; then
--           a record per limit: kind, id, capacity, and what its window needs
--   state   version of the policy that it was written under, negative while terms are in
--           force, number of limits, time of the last write, skew, wall time until which it
--           is kept; then per limit its id and its cell; then the terms, if any; then what is
--           set aside: per limit that another policy had its id, the time of its last write,
--           and its cell; then what is learned (lib/learned)
--
-- A window explains its record and its cell at its head (lib/bucket and its kin). A
-- shadow of a window has a kind SHADOW higher in the policy. The last two bits of an id
-- are its kind less one, and a ramp's id is RAMPS or more, so that a state can be read
-- without its policy. All times are microseconds.
local VERSION, COUNT = 1, 2
local KEEP, COLD_START, SLOTS, LEARN, RECORDS = 3, 4, 5, 6, 7
local TIME, SKEW, KEPT, CELLS = 3, 4, 5, 6
local BUCKET, CONCURRENCY, RAMP, SHADOW = 1, 4, 5, 8
local RAMPS = 1125899906842624

-- For how long a state is kept at most, which is hundreds of years: a debt of a slow limit may
-- last longer than what the server takes as an expiry.
local AGES = 10000000000000000

-- What a window answers beside a time to wait.
local NEVER, STALE = -1, -2
