-- Read what the policies of a chain say (lib/ordinary), and of its first scope.
scopes, limits, gated, ratio, most, memory, life, span_of_bucket, version, least, own, c1, r1,
  c2, r2, c3, r3, c4, r4 = unpacked("<ddddddddddddddddddd", terms)
of_state, of_asked = sub(DOUBLES, 1, CELLS + 2 * own), sub(DOUBLES, 1, CHARGES + own + 1)
known_pin = nil
if scopes > 1 and not places then
  places, to_write, to_keep = { 1, 2, 3, 4 }, {}, {}
end
