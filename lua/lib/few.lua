-- One scope of at most four limits, which is what most calls meet: what lib/many does with its
-- state, without a table or a function. Where it is not ordinary, `few` is false.
local few = scopes == 1 and limits > 0 and limits < 5 and texts[place]
local v, count, time, skew, kept, i1, l1, i2, l2, i3, l3, i4, l4
few = few and #few >= 8 * (CELLS - 1 + 2 * limits)
if few then
  v, count, time, skew, kept, i1, l1, i2, l2, i3, l3, i4, l4 = unpacked(of_state, texts[place])
  local elapsed, huge = wall + skew - time, math.huge
  few, time, l1 = v == version and elapsed >= 0, wall + skew, l1 + elapsed * r1
  if l1 > c1 then
    l1 = c1
  end
  l2 = limits > 1 and l2 + elapsed * r2 or huge
  if limits > 1 and l2 > c2 then
    l2 = c2
  end
  l3 = limits > 2 and l3 + elapsed * r3 or huge
  if limits > 2 and l3 > c3 then
    l3 = c3
  end
  l4 = limits > 3 and l4 + elapsed * r4 or huge
  if limits > 3 and l4 > c4 then
    l4 = c4
  end
end
