-- Settle in turn until a report is not ordinary (lib/settled). A lease that was settled before is
-- longer: it tells what has moved.
local settled, span, px = {}, nil, nil
local size, length = 8 * (REPORTED + limits), 8 * (CHARGES + limits + CELLS - 1 + 2 * limits)
local told = sub(DOUBLES, 1, REPORTED + limits + 1)
local changes = sub(DOUBLES, 1, limits + 1)
for n = 1, all do
  local key, text = keys[first + n], texts[first + n]
  if not text or #text ~= length or known and known[key] then
    break
  end
  local at = size * (n - 1) + 1
  local _, token, more, class, _, late, _, u1, u2, u3, u4 = unpacked(told, asked, at)
  local nonce, _, ttl, past, _, _, epoch, marks, held_limits, a1, a2, a3, a4 =
    unpacked(of_asked, text)
  local then_version, _, began, moved = unpacked("<dddd", text, 8 * (CHARGES + limits) + 1)
  if
    nonce ~= token
    or wall >= began - moved + ttl
    or more ~= 0 -- a first token, or what a provider has said
    or held_limits ~= limits
    or then_version ~= version
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
    count_success(watched, marks % 32)
  end
  local m1, m2 = u1 >= 0 and u1 - a1 or 0, u2 >= 0 and u2 - a2 or 0
  local m3 = limits > 2 and u3 >= 0 and u3 - a3 or 0
  local m4 = limits > 3 and u4 >= 0 and u4 - a4 or 0
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
  text = sub(text, 1, 8 * SETTLED - 8) .. packed("<d", wall) .. sub(text, 8 * SETTLED + 1)
    .. packed(changes, m1, m2, m3, m4)
  if past ~= span then
    span, px = past, string.format("%d", math.ceil(past / 1000))
  end
  call("SET", key, text, "PX", px)
  settled[n] = text
  if known then
    known[key] = true
  end
end
