-- What the outcome of a call does to the circuit that let it pass (lib/breaker).

local function count_bits(set)
  local count = 0
  while set > 0 do
    count = count + set % 2
    set = math.floor(set / 2)
  end
  return count
end

local function with_bit(set, nth)
  local value = 2 ^ nth
  return math.floor(set / value) % 2 == 0 and set + value or set
end

-- Let old buckets leave the window.
local function roll_window(c, now)
  local newest = math.floor(now / c[C_SPAN])
  local moved = math.min(newest - c[C_NEWEST], BUCKETS) * FIELDS
  for i = C_STATE - 1, moved > 0 and C_WINDOW or C_STATE, -1 do
    c[i] = i - moved >= C_WINDOW and c[i - moved] or 0
  end
  c[C_NEWEST] = newest
end

-- A call that was counted as a success when its first token came has failed after all:
-- it stays one call, so the newest success there is makes room.
local function take_back(c)
  for at = C_WINDOW, C_STATE - 1, FIELDS do
    if c[at] > 0 then
      c[at] = c[at] - 1
      return
    end
  end
end

-- Why the window says that the circuit should open, or nil.
--
-- One worker that fails alone is the one that is broken: as many must fail as the policy
-- wants, or all that there are. A run that is shorter than `Q_BURST` is one event that hit
-- many calls at once, unless it hit several workers.
local function verdict_of(c, q, now)
  local ok, failed, late, throttled, failing, active = 0, 0, 0, 0, 0, 0
  for at = C_WINDOW, C_STATE - 1, FIELDS do
    ok, failed, late = ok + c[at], failed + c[at + 1], late + c[at + 2]
    throttled = throttled + c[at + 3]
    failing, active = bit.bor(failing, c[at + 4]), bit.bor(active, c[at + 5])
  end
  local calls, least = ok + failed, q[Q_LEAST]
  c[C_SPOTLESS] = failed + late + throttled + c[C_RUN] + c[C_REFUSALS] == 0 and 1 or 0
  local wanted = math.min(q[Q_WORKERS], count_bits(active % 4294967296))
  if q[Q_RUN] > 0 and c[C_RUN] >= q[Q_RUN] then
    local workers = count_bits(c[C_RUN_WORKERS])
    local spread = now - c[C_RUN_SINCE] >= q[Q_BURST] or workers >= math.max(2, q[Q_WORKERS])
    if workers >= wanted and spread then
      return "consecutive"
    end
  end
  if calls >= least and failed > 0 and failed >= calls * q[Q_FAILURES] then
    if count_bits(failing % 4294967296) >= wanted then
      return "failure_rate"
    end
  end
  if calls >= least and late > 0 and late >= calls * q[Q_SLOW] then
    return "slow_rate"
  end
  local every = calls + throttled
  if every >= least and throttled > 0 and throttled >= every * q[Q_THROTTLED] then
    return "throttle_rate"
  end
end

-- Whether a report latches the model: which latch, or nil. Credentials are believed to be
-- refused when that was said several times in a row, or again after a latch.
local function latch_of(c, q, r)
  if r.class == QUOTA_OF_MODEL then
    return 1
  elseif r.class == REFUSED_OF_MODEL then
    c[C_REFUSALS], c[C_SPOTLESS], c.changed = c[C_REFUSALS] + 1, 0, true
    return (c[C_REFUSALS] >= q[Q_REFUSED] or c[C_LATCH] == 2) and 2 or nil
  end
end

-- Count an outcome in a closed circuit, and open it where the window says so.
local function count_outcome(c, q, now, r, luck, events)
  local class = r.class
  if class == QUOTA_OF_MODEL or class == REFUSED_OF_MODEL then
    local kind = latch_of(c, q, r)
    if kind and c[C_OVERRIDE] == 0 then
      latch_model(c, q, now, kind, r.retry_after, events)
    elseif kind and c[C_OVERRIDE] == OBSERVED and now >= c[C_SILENT] then
      c[C_SILENT], c.changed = now + q[Q_OPEN], true
      events[#events + 1] = { "type", "would_open", "reason", latch_names[kind] }
    end
    return
  end
  local at = C_WINDOW
  roll_window(c, now)
  if class == NEUTRAL then
    return
  elseif class == SUCCESS and r.early then
    -- Counted at its first token; that it has ended well ends a row of failures.
    if c[C_RUN] > 0 then
      c[C_RUN], c[C_RUN_WORKERS], c[C_RUN_SINCE], c.changed = 0, 0, 0, true
    end
    return
  end
  local calls = r.calls or 1
  c.changed = true
  c[at + 5] = with_bit(c[at + 5], r.worker)
  if class == SUCCESS then
    c[at] = c[at] + calls
    c[at + 2] = c[at + 2] + (r.slow and calls or 0)
    c[C_REFUSALS] = 0
    if not r.begun then
      c[C_RUN], c[C_RUN_WORKERS], c[C_RUN_SINCE] = 0, 0, 0
    end
  elseif class == THROTTLE then
    c[at + 3] = c[at + 3] + calls
  else
    if r.early then
      take_back(c)
    end
    c[at + 1] = c[at + 1] + calls
    c[at + 4] = with_bit(c[at + 4], r.worker)
    c[C_RUN_SINCE] = c[C_RUN] > 0 and c[C_RUN_SINCE] or now
    c[C_RUN], c[C_RUN_WORKERS] = c[C_RUN] + calls, with_bit(c[C_RUN_WORKERS], r.worker)
  end
  local why = verdict_of(c, q, now)
  if not why then
    return
  elseif c[C_OVERRIDE] == 0 then
    trip(c, q, now, r.retry_after, luck, why, events)
  elseif c[C_OVERRIDE] == OBSERVED and now >= c[C_SILENT] then
    c[C_SILENT] = now + q[Q_OPEN]
    events[#events + 1] = { "type", "would_open", "reason", why }
  end
end

-- The vote of a probe: one failure opens, enough successes close, the rest frees the slot.
-- Without a live lease there is no vote, which makes a repeat of a report harmless; but a
-- probe whose stream breaks after its first token takes its vote back.
local function vote(c, q, now, r, luck, events)
  local at = C_PROBES
  while at < #c and c[at] ~= r.token do
    at = at + 2
  end
  if r.early and r.class == FAILURE and c[C_VOTED] == r.token then
    trip(c, q, now, r.retry_after, luck, "probe_failed", events)
    return "voted"
  elseif at > #c or c[at + 1] <= now then
    return "nolease"
  end
  table.remove(c, at)
  table.remove(c, at)
  c.changed = true
  if r.class == FAILURE or (r.class == SUCCESS and r.slow) then
    trip(c, q, now, r.retry_after, luck, "probe_failed", events)
  elseif r.class == QUOTA_OF_MODEL or r.class == REFUSED_OF_MODEL then
    local kind = latch_of(c, q, r)
    if kind then
      latch_model(c, q, now, kind, r.retry_after, events)
    end
  elseif r.class == SUCCESS then
    c[C_PASSED], c[C_LOST], c[C_VOTED] = c[C_PASSED] + 1, 0, r.token
    if c[C_PASSED] >= q[Q_NEEDED] then
      c[C_CLOSED_AT] = now
      enter(c, CLOSED, now, "recovered", events)
    end
  end
  return "voted"
end

-- Take in one report: `class`, `generation` and `token` of the grant, `worker` (0 to 31),
-- `slow`, `retry_after` (0: none), `begun` (this is its first token), `early` (its success was
-- counted at the first token), `kind` (of an error, for people), `calls` (so many have ended
-- alike; none: 1). `luck` as for trip. Returns what it was taken for.
local function take_report(c, q, now, r, luck, events)
  lift_override(c, now, events)
  if r.class == THROTTLE and r.retry_after > 0 and q[Q_WIDE] == 0 then
    local till = now + math.min(r.retry_after, q[Q_LONGEST])
    if till > c[C_COOL] then
      if c[C_COOL] <= now then
        local wait = string.format("%.0f", till - now)
        events[#events + 1] = { "type", "cooldown", "reason", "throttled", "lasts", wait }
      end
      c[C_COOL], c.changed = till, true
    end
  end
  if r.generation ~= c[C_GENERATION] then
    return "stale"
  end
  if r.class == QUOTA or r.class == REFUSED then
    r.class = NEUTRAL -- the pin's business; here it frees the slot
  end
  if r.class == FAILURE and c[C_STATE] ~= OPEN then
    for i = C_ERRORS + 5, C_ERRORS + 2, -1 do
      c[i] = c[i - 2]
    end
    c[C_ERRORS], c[C_ERRORS + 1], c.changed = r.kind, now, true
  end
  if c[C_STATE] == HALF then
    return vote(c, q, now, r, luck, events)
  elseif c[C_STATE] == CLOSED then
    count_outcome(c, q, now, r, luck, events)
    return "counted"
  end
  return "ignored"
end
