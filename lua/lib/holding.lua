-- What settle and renew do with a lease that exists.

-- The lease behind `text`, when `nonce` may change it at `wall`; otherwise nil and the
-- letter of the refusal: U unknown, A already settled, X expired. With it, when it
-- was granted, and by limit id its place among the charges and its cell at that time.
local function open_lease(text, nonce, wall)
  local lease = text and numbers(text)
  if not lease or lease[1] ~= nonce then
    return nil, "U"
  elseif lease[SETTLED] > 0 then
    return nil, "A" .. text
  end
  lease[#lease] = nil -- struct.unpack ends with the next position
  local granted, nth, held, i = nil, {}, {}, 0
  local base = CHARGES + lease[LIMITS]
  while base < #lease do
    local cells, m, last = places(lease, base)
    granted = granted or lease[m] - lease[m + 1]
    local p = base + RECORDS
    for _ = 1, lease[base + COUNT] do
      i = i + 1
      local id = lease[p + 1]
      nth[id], held[id] = i, cells[id]
      p = p + window_of(lease[p]).record
    end
    base = last
  end
  if wall >= granted + lease[TTL] then
    return nil, "X"
  end
  return lease, granted, nth, held
end

-- Call visit(s, p, at, now) for every limit: its scope, its record, its cell, the
-- time of the scope. For scripts that are not on the hottest path.
local function each_limit(states, visit)
  for scope = 1, #states do
    local s, m = states[scope], #ARGV[scope] / 8 + 1
    local p, at = RECORDS, m + CELLS
    for _ = 1, s[COUNT] do
      local record, size = window_of(s[p]).record, s[p + 2]
      visit(s, p, at, s[m])
      p, at = p + record, at + size
    end
  end
end
