-- The state to write, and whether it is to be kept for longer (lib/many).
local needed, keep = least, (c1 - l1) / r1
if keep > needed then
  needed = keep
end
keep = limits > 1 and (c2 - l2) / r2 or 0
if keep > needed then
  needed = keep
end
keep = limits > 2 and (c3 - l3) / r3 or 0
if keep > needed then
  needed = keep
end
keep = limits > 3 and (c4 - l4) / r4 or 0
if keep > needed then
  needed = keep
end
if needed > AGES then
  needed = AGES
end
local longer = kept - wall < needed
if longer then
  kept = wall + 2 * needed
end
local state = packed(of_state, v, count, time, skew, kept, i1, l1, i2, l2, i3, l3, i4, l4)
