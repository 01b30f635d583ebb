-- The state of a scope of at most four limits, which is what most have: what lib/many does with
-- it, without a table or a function. Where it is not ordinary, `few` is false. So many limits of
-- the chain are `ahead` of it.
if scopes > 1 then
  place = places[scope]
  version, least, own, c1, r1, c2, r2, c3, r3, c4, r4 = unpacked("<ddddddddddd", terms,
    8 * (TERMS_OF_SCOPES - 1 + 3 * (scope - 1) + 2 * ahead) + 1)
  of_state, of_asked = sub(DOUBLES, 1, CELLS + 2 * own), sub(DOUBLES, 1, CHARGES + own + 1)
end
local old = texts[place]
local v, count, time, skew, kept, i1, l1, i2, l2, i3, l3, i4, l4
few = own > 0 and own < 5 and old and #old >= 8 * (CELLS - 1 + 2 * own)
if few then
  v, count, time, skew, kept, i1, l1, i2, l2, i3, l3, i4, l4 = unpacked(of_state, old)
  local elapsed, huge = wall + skew - time, math.huge
  few, time, l1 = v == version and elapsed >= 0, wall + skew, l1 + elapsed * r1
  if l1 > c1 then
    l1 = c1
  end
  l2 = own > 1 and l2 + elapsed * r2 or huge
  if own > 1 and l2 > c2 then
    l2 = c2
  end
  l3 = own > 2 and l3 + elapsed * r3 or huge
  if own > 2 and l3 > c3 then
    l3 = c3
  end
  l4 = own > 3 and l4 + elapsed * r4 or huge
  if own > 3 and l4 > c4 then
    l4 = c4
  end
end
