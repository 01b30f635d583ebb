-- Ramp: use that may not grow faster than its provider tolerates.
--
-- In one period it is at most `factor` times what it was in the period before, or `capacity`
-- where that is more. Slots are a twentieth of a period wide. The 21 newest ones cover every
-- period that ends now, so that nothing counts as older than it is, and use cannot grow twice
-- at an edge; as many before them are the period before, or whoever goes on as before would
-- fall behind. An amount that is larger than what is allowed passes when nothing was used for
-- a period: otherwise it never could.
--
-- record  kind 5, id, capacity, factor, slot width
-- cell    number of the newest slot, 42 slots
local function ramp_window()
  local RAMP_PERIOD, RAMP_RING = 21, 42

  local function start(q, p, s, at, now, old, old_at)
    for i = 0, RAMP_RING do
      s[at + i] = old and old[old_at + i] or 0
    end
    if not old then
      s[at] = math.floor(now / q[p + 4])
    end
  end

  -- What was used in the present period, and in the one before.
  local function used(s, at)
    local present, before, newest = 0, 0, s[at]
    for slot = newest - RAMP_PERIOD + 1, newest do
      present = present + s[at + 1 + slot % RAMP_RING]
      before = before + s[at + 1 + (slot - RAMP_PERIOD) % RAMP_RING]
    end
    return present, before
  end

  -- The first time, `after` or later, at which an amount fits when nothing else comes. It is
  -- not the same as having room from then on: the longer a pause, the less may follow.
  local function fits(q, p, s, at, amount, now, after)
    local capacity, factor, width, newest = q[p + 2], q[p + 3], q[p + 4], s[at]
    local present, before = used(s, at)
    local ends = (newest + 1) * width - now
    for slot = newest + 1, newest + RAMP_PERIOD do
      local room = math.max(capacity, factor * before) - present
      if after < ends and (present <= 0 or amount - room <= 1e-6) then
        return math.max(after, ends - width, 0)
      end
      local leaves = s[at + 1 + slot % RAMP_RING]
      local moves = s[at + 1 + (slot - RAMP_PERIOD) % RAMP_RING]
      present, before, ends = present - moves, before + moves - leaves, ends + width
    end
    return math.max(after, ends - width) -- nothing is left of what was used
  end

  -- Let old slots leave the ring; then until it fits.
  local function look(q, p, s, at, amount, now)
    local newest = math.floor(now / q[p + 4])
    for slot = math.max(s[at], newest - RAMP_RING) + 1, newest do
      s[at + 1 + slot % RAMP_RING] = 0
    end
    s[at] = newest
    return fits(q, p, s, at, amount, now, 0)
  end

  local function room(q, p, s, at)
    local present, before = used(s, at)
    return math.max(q[p + 2], q[p + 3] * before) - present
  end

  -- As in a sliding window: a debit is used now, a refund belongs to the slot that was the
  -- newest one when it was charged, and is void once that slot has left the ring.
  local function charge(s, at, amount, held, held_at)
    local slot = amount < 0 and held[held_at] or s[at]
    if slot <= s[at] - RAMP_RING or slot > s[at] then
      return 0
    end
    local i = at + 1 + slot % RAMP_RING
    amount = math.max(amount, -s[i])
    s[i] = s[i] + amount
    return amount
  end

  local function keep(q, p)
    return RAMP_RING * q[p + 4]
  end

  return {
    record = 5,
    cell = RAMP_RING + 1,
    start = start,
    look = look,
    charge = charge,
    keep = keep,
    fits = fits,
    room = room,
  }
end
