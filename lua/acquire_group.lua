-- Take for calls of one chain, one or many, in the order in which they came, each from every limit
-- or from none: what acquire would do for one after another, as far as that is ordinary
-- (lib/ordinary). Whoever called asks acquire for the rest.
--
-- KEYS    the scopes, strings; the pin of the pool, a string; the queue, a string; for each
--         request the lease, a string; last, the circuit of the model, a string
-- ARGV    what the policies say of ordinary calls (lib/ordinary); the requests one behind the
--         other, each as for acquire
-- returns the nonce of the first request, alone where nothing is ordinary for some time; then one
--         Q for all: somebody waits in this pool, or one ? for all, for acquire; or a letter for
--         each, G granted, D denied, ? for acquire, the generation of the circuit, for each that
--         is denied the number of the binding limit and the time to wait (-1 never), and the
--         states after all of them, which are those of each. A single one that is granted: its
--         lease (lib/lease), which begins with the nonce

-- @include lib/clock
-- @include lib/layout
-- @include lib/lease
-- @include lib/ordinary

local terms, asked = ARGV[1], ARGV[2]
-- @include lib/terms
local first, all, circuit, place = scopes + 2, #keys - scopes - 3, keys[#keys], 1
local texts, wall = call("MGET", unpack(keys, 1, first)), now_us()
local pin_key, pin, queued = keys[first - 1], texts[first - 1], texts[first]

-- @include lib/acquire_ordinary
