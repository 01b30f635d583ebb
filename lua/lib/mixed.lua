-- Calls of several chains of one pool (lib/in_turn):
--
-- KEYS    the scopes of all of them, each once, strings; the pin of the pool, a string; the queue,
--         a string; for each call its lease, those of a chain one behind the other, strings; the
--         circuits, each once, strings
-- ARGV    numbers: how many scopes there are in all, how many calls, and how many texts that say
--         what policies say; then for each chain which of those is its own, how many calls it
--         has, which circuit, and which scopes; then those texts (lib/ordinary), each once; then
--         for each chain what is asked
local plan, total, calls, kinds = ARGV[1], unpacked("<ddd", ARGV[1])
local first, terms, asked, all, circuit, place, places = total + 2, nil, nil, nil, nil, nil, nil
