-- Sliding window: never more than `capacity` in any period, in a ring of slots.
--
-- Slots are period / n wide and the n + 1 newest ones count, which covers every
-- period that ends now: late by at most one slot, never early, O(1) in history.
--
-- record  kind 2, id, size, capacity, slot width in microseconds, n
-- cell    number of the newest slot, sum over the ring, n + 1 slots
local function sliding_window()
  local function start(s, p, at, now, old, old_at)
    if old then
      for i = 0, s[p + 2] - 1 do
        s[at + i] = old[old_at + i]
      end
      return
    end
    local spent = math.floor(s[p + 3] * (1 - s[COLD_START]))
    s[at], s[at + 1] = math.floor(now / s[p + 4]), spent
    for i = at + 2, at + 2 + s[p + 5] do
      s[i] = 0
    end
    s[at + 2 + s[at] % (s[p + 5] + 1)] = spent
  end

  -- Let old slots leave the ring; then until enough of the next ones must have left.
  local function look(s, p, at, amount, now)
    local newest, n = math.floor(now / s[p + 4]), s[p + 5]
    local ring, slots = n + 1, at + 2
    for slot = math.max(s[at] + 1, newest - n), newest do
      local i = slots + slot % ring
      s[at + 1], s[i] = s[at + 1] - s[i], 0
    end
    s[at] = newest

    local excess = s[at + 1] + amount - s[p + 3]
    if excess <= 0 then
      return 0
    elseif amount > s[p + 3] then
      return NEVER
    end
    local last = newest - n
    for slot = last, newest do
      excess, last = excess - s[slots + slot % ring], slot
      if excess <= 0 then
        break
      end
    end
    return (last + ring) * s[p + 4] - now
  end

  -- A debit is spent now. A refund belongs to the slot that was the newest one when it
  -- was charged (`held` is that state), and is void once that slot has left the ring.
  local function charge(s, p, at, amount, held, held_at)
    local slot, ring = s[at], s[p + 5] + 1
    if amount < 0 then
      slot = held[held_at]
      if slot <= s[at] - ring or slot > s[at] then
        return 0
      end
    end
    local i = at + 2 + slot % ring
    s[i], s[at + 1] = s[i] + amount, s[at + 1] + amount
    return amount
  end

  local function keep(s, p)
    return (s[p + 5] + 1) * s[p + 4]
  end

  return { record = 6, start = start, look = look, charge = charge, keep = keep }
end
