-- The plan of a call about several chains of one pool (lib/in_turn): how many scopes there are in
-- all, how many calls, and how many texts say what policies say; then for each chain which of those
-- texts is its own, how many calls it has, which circuit, and which scopes.
local plan, total, calls, kinds = ARGV[1], unpacked("<ddd", ARGV[1])
local first, terms, asked, all, circuit, place = total + 2, nil, nil, nil, nil, nil
