-- Settle leases of one chain, one or many, in the order in which the reports came: what settle
-- would do for one after another, as far as that is ordinary (lib/ordinary). Whoever called asks
-- settle for the rest.
--
-- KEYS    as for acquire_group
-- ARGV    what the policies say of ordinary calls (lib/ordinary); the reports one behind the
--         other, each as for settle, without readings
-- returns the tag of the first report, alone where nothing is ordinary for some time; then one ?
--         for all, which settle has to take in; or a letter for each, G settled, g the same while
--         somebody waits in this pool, ? for settle, and of those that are settled the leases
--         (lib/lease), which are of one size

-- @include lib/clock
-- @include lib/layout
-- @include lib/lease
-- @include lib/ordinary
-- @include lib/success

local terms, asked = ARGV[1], ARGV[2]
-- @include lib/terms
local first, all, circuit, place = scopes + 2, #keys - scopes - 3, keys[#keys], 1
local texts, wall = call("MGET", unpack(keys, 1, first + all)), now_us()
local pin, queued, known = texts[first - 1], texts[first], all > 1 and {} or nil

-- @include lib/settle_ordinary
