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
  lease[#lease] = nil
  local base = CHARGES + lease[LIMITS]
  local granted = lease[base + TIME] - lease[base + SKEW]
  if wall >= granted + lease[TTL] then
    return nil, "X"
  end
  local nth, held, i = {}, {}, 0
  while base < #lease do
    local last = note_cells(lease, base, held)
    local at = base + CELLS
    for _ = 1, lease[base + COUNT] do
      i = i + 1
      nth[lease[at]] = i
      at = at + 1 + window_by(lease[at]).cell
    end
    base = last
  end
  return lease, granted, nth, held
end

-- Call visit(q, p, s, at) for every limit: its record and its cell.
local function each_limit(visit)
  for scope = 1, #states do
    local q, s, p, at = policies[scope], states[scope], RECORDS, CELLS + 1
    for _ = 1, q[COUNT] do
      local window = window_of(q[p])
      visit(q, p, s, at)
      p, at = p + window.record, at + window.cell + 1
    end
  end
end

-- Move every charge of a lease to what `used` says after place i (-1: as reserved), and
-- release its slots. What moved on each limit stands behind the lease.
local function settle_lease(lease, nth, held, used, i)
  local last = #lease
  for nothing = 1, lease[LIMITS] do
    lease[last + nothing] = 0
  end
  each_limit(function(q, p, s, at)
    i = i + 1
    local n, amount = nth[q[p + 1]], used[i]
    local charged = n and lease[CHARGES + n]
    if n and charged >= 0 then
      if amount >= 0 then
        lease[last + n] = charge(q, p, s, at, amount - charged, lease, held[q[p + 1]])
      end
      local window = windows[q[p]]
      if window and window.release then
        window.release(q, p, s, at, lease[1])
      end
    end
  end)
end
