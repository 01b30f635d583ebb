-- Decide over chain after chain (lib/mixed): each as if it was asked for alone, after what those
-- before it have written.
local at, told, replies = 25, nil, {}
for n = 1, #ARGV - 1 - kinds do
  local kind, nth
  kind, all, nth, place = unpacked("<dddd", plan, at)
  if kind ~= told then
    told, terms = kind, ARGV[1 + kind]
-- @include lib/terms
  end
  if scopes > 1 then
    places[1], places[2], places[3], places[4] =
      unpacked(sub(DOUBLES, 1, scopes + 1), plan, at + 24)
  end
  asked, circuit = ARGV[1 + kinds + n], keys[total + 2 + calls + nth]
  replies[n] = decide_chain()
  first, at = first + all, at + 8 * (3 + scopes)
end
