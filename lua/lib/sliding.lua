-- Sliding window: never more than `capacity` in any period, in a ring of slots.
--
-- Slots are a ninetieth of the period wide and the 91 newest count, which covers every
-- period that ends now: late by at most one slot, never early, O(1) in history.
--
-- record  kind 2, id, capacity, slot width
-- cell    number of the newest slot, sum over the ring, 91 slots
local function sliding_window()
  local RING = 91

  local function start(q, p, s, at, now, old, old_at)
    if old then
      for i = 0, RING + 1 do
        s[at + i] = old[old_at + i]
      end
      return
    end
    local spent = math.floor(q[p + 2] * (1 - q[COLD_START]))
    s[at], s[at + 1] = math.floor(now / q[p + 3]), spent
    for i = at + 2, at + 1 + RING do
      s[i] = 0
    end
    s[at + 2 + s[at] % RING] = spent
  end

  -- Let old slots leave the ring; then until enough of the next ones must have left.
  local function look(q, p, s, at, amount, now)
    local capacity, width, slots = q[p + 2], q[p + 3], at + 2
    local newest = math.floor(now / width)
    for slot = math.max(s[at], newest - RING) + 1, newest do
      local i = slots + slot % RING
      s[at + 1], s[i] = s[at + 1] - s[i], 0
    end
    s[at] = newest

    local excess = s[at + 1] + amount - capacity
    if excess <= 0 then
      return 0
    elseif amount > capacity then
      return NEVER
    end
    local last = newest - RING + 1
    for slot = last, newest do
      excess, last = excess - s[slots + slot % RING], slot
      if excess <= 0 then
        break
      end
    end
    return (last + RING) * width - now
  end

  -- A debit is spent now. A refund belongs to the slot that was the newest one when it
  -- was charged (`held` is that state), and is void once that slot has left the ring. A
  -- slot never holds less than nothing: the limit may have begun anew meanwhile.
  local function charge(s, at, amount, held, held_at)
    local slot = amount < 0 and held[held_at] or s[at]
    if slot <= s[at] - RING or slot > s[at] then
      return 0
    end
    local i = at + 2 + slot % RING
    amount = math.max(amount, -s[i])
    s[i], s[at + 1] = s[i] + amount, s[at + 1] + amount
    return amount
  end

  local function keep(q, p)
    return RING * q[p + 3]
  end

  return { record = 4, cell = RING + 2, start = start, look = look, charge = charge, keep = keep }
end
