-- Calendar window: `capacity` from one boundary of the wall calendar to the next.
--
-- The service computes boundaries (time zones are its business) and passes the
-- current and the next window; the script picks by its own clock. A clock outside
-- both makes the service compute them again, and nothing is written.
--
-- record  kind 3, id, capacity, start of the window, its end, end of the next
-- cell    start of the window that is counted, spent in it
local function calendar_window()
  local function start(q, p, s, at, _, old, old_at)
    if old then
      s[at], s[at + 1] = old[old_at], old[old_at + 1]
    else
      s[at], s[at + 1] = q[p + 3], math.floor(q[p + 2] * (1 - q[COLD_START]))
    end
  end

  -- Until the counted window ends.
  local function keep(q, p, s, at, wall)
    local stop, next_stop = q[p + 4], q[p + 5]
    if s[at] < stop then
      return stop - wall
    elseif s[at] < next_stop then
      return next_stop - wall
    end
    return 2 * next_stop - stop - wall
  end

  -- A clock that steps back over one boundary stays in the newer window, so nobody
  -- gets the older one twice. One that had run further ahead than that was wrong:
  -- today's window is taken up again, with what was spent; second, whether it is.
  local function look(q, p, s, at, amount, _, wall)
    local capacity, from, stop, back = q[p + 2], q[p + 3], q[p + 4], false
    if wall < from or wall >= q[p + 5] then
      return STALE
    elseif wall >= stop then
      from, stop = stop, q[p + 5]
    end
    if s[at] < from then
      s[at], s[at + 1] = from, 0
    elseif s[at] > stop then
      s[at], back = from, true
    end
    if s[at + 1] + amount <= capacity then
      return 0, back
    elseif amount > capacity then
      return NEVER, back
    end
    return keep(q, p, s, at, wall), back
  end

  -- A debit is spent in the open window. A refund into a closed one is void (`held` is
  -- the state when it was charged), and none goes below nothing spent.
  local function charge(s, at, amount, held, held_at)
    if amount < 0 and held[held_at] ~= s[at] then
      return 0
    end
    amount = math.max(amount, -s[at + 1])
    s[at + 1] = s[at + 1] + amount
    return amount
  end

  return { record = 6, cell = 2, start = start, look = look, charge = charge, keep = keep }
end
