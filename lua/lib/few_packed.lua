-- The state to write, whether it is to be kept for longer, and for how many milliseconds then
-- (lib/many).
local needed, keep = least, (c1 - l1) / r1
if keep > needed then
  needed = keep
end
keep = own > 1 and (c2 - l2) / r2 or 0
if keep > needed then
  needed = keep
end
keep = own > 2 and (c3 - l3) / r3 or 0
if keep > needed then
  needed = keep
end
keep = own > 3 and (c4 - l4) / r4 or 0
if keep > needed then
  needed = keep
end
if needed > AGES then
  needed = AGES
end
longer = kept - wall < needed
if longer then
  kept, longer = wall + 2 * needed, math.ceil(needed / 500) + 1000
end
state = packed(of_state, v, count, time, skew, kept, i1, l1, i2, l2, i3, l3, i4, l4)
if scopes > 1 then
  to_write[scope], to_keep[scope] = state, longer
end
ahead = ahead + own
