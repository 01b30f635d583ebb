-- Take in what is told of the scope, in turn until a report is not ordinary (lib/settled). What is
-- not of one scope is looked at with the first; amounts of a later one are read with numbers before
-- them that mean nothing then. A lease that was settled before is longer: it tells what has moved.
local held = 8 * (CHARGES + limits + (CELLS - 1) * (scope - 1) + 2 * ahead) + 1
local of_told, of_changes = sub(DOUBLES, 1, REPORTED + own + 1), sub(DOUBLES, 1, own + 1)
for n = 1, few and (scope > 1 and #settled or all) or 0 do
  local key, text = keys[first + n], texts[first + n]
  if scope == 1 and (not text or #text ~= length or known and known[key]) then
    break
  end
  local at = size * (n - 1) + 8 * ahead + 1
  local _, token, more, class, _, late, _, u1, u2, u3, u4 = unpacked(of_told, asked, at)
  local nonce, _, ttl, past, _, _, epoch, marks, held_limits, a1, a2, a3, a4 =
    unpacked(of_asked, text, 8 * ahead + 1)
  local then_version, _, began, moved = unpacked("<dddd", text, held)
  if scope > 1 then
    if then_version ~= version then
      few = false
      break
    end
  else
    if
      nonce ~= token
      or wall >= began - moved + ttl
      or more ~= 0 -- a first token, or what a provider has said
      or held_limits ~= limits
      or then_version ~= version
      or n > 1 and past ~= span
    then
      break
    end
    if watched then
      if
        class ~= SUCCESS
        or late ~= 0
        or marks % 512 >= 32 -- a probe, or counted at its first token
        or epoch ~= watched.generation
      then
        break
      end
      busy = with_worker(busy, marks % 32)
    end
    span = past
    if known then
      known[key] = true
    end
  end
  local m1, m2 = u1 >= 0 and u1 - a1 or 0, u2 >= 0 and u2 - a2 or 0
  local m3 = own > 2 and u3 >= 0 and u3 - a3 or 0
  local m4 = own > 3 and u4 >= 0 and u4 - a4 or 0
  l1, l2, l3, l4 = l1 - m1, l2 - m2, l3 - m3, l4 - m4
  if l1 > c1 then
    l1 = c1
  end
  if l2 > c2 then
    l2 = c2
  end
  if l3 > c3 then
    l3 = c3
  end
  if l4 > c4 then
    l4 = c4
  end
  local changes = packed(of_changes, m1, m2, m3, m4)
  settled[n] = scope > 1 and settled[n] .. changes or changes
end
