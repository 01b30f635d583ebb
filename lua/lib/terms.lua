-- Read what the policies of a chain say (lib/ordinary).
scopes, limits, gated, ratio, most, memory, life, span_of_bucket, version, least, _, c1, r1,
  c2, r2, c3, r3, c4, r4 = unpacked("<ddddddddddddddddddd", terms)
of_state, of_asked = sub(DOUBLES, 1, CELLS + 2 * limits), sub(DOUBLES, 1, CHARGES + limits + 1)
