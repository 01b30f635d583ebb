-- Decide over call after call by `decide`, with KEYS and ARGV as if each was alone.
--
-- The plan: how many chains, how many calls; then for each chain how many keys it has (all but
-- lease and queue) and how many arguments (all but the last), and where those stand among all; then
-- for each call which chain is its own.
local plan, chains, replies = all_arguments[1], {}, {}
local count, calls = struct.unpack("<dd", plan)
local at = 17
for n = 1, count do
  local of_keys, of_arguments = struct.unpack("<dd", plan, at)
  local all, keys, arguments = of_keys + of_arguments, {}, {}
  local places = { struct.unpack("<" .. string.rep("d", all), plan, at + 16) }
  for i = 1, of_keys do
    keys[i] = all_keys[places[i]]
  end
  for i = 1, of_arguments do
    arguments[i] = all_arguments[places[of_keys + i]]
  end
  keys[of_keys + 1], keys[of_keys + 2] = "", all_keys[1]
  chains[n], at = { keys, arguments, of_keys + 1, of_arguments + 1 }, at + 16 + 8 * all
end

local now, leases, requests = now_us(), #all_keys - calls, #all_arguments - calls
for n = 1, calls do
  local chain = chains[struct.unpack("<d", plan, at + 8 * (n - 1))]
  KEYS, ARGV = chain[1], chain[2]
  KEYS[chain[3]], ARGV[chain[4]] = all_keys[leases + n], all_arguments[requests + n]
  replies[n] = decide(now)
end
return replies
