-- What a whole pool shares beside its limits: latches, a cooldown, and the retry budget.
--
--   state   time from which it is calm, skew, time of the last write, balance of the retry
--           budget; latch (0 none, 1 quota, 2 credentials), latched until, latched since,
--           token of the trial, its deadline, refused credentials in a row, cooling until
--
-- A latch is over when an operator resets it, or when one call that may try after its time
-- has succeeded: an account that is still exhausted then costs one call, not one per worker.
local P_CALM, P_SHIFT, P_SEEN, P_BALANCE, P_LATCH, P_UNTIL = 1, 2, 3, 4, 5, 6
local P_SINCE, P_TRIAL, P_TRIAL_UNTIL, P_REFUSED, P_COOL = 7, 8, 9, 10, 11
local P_NUMBERS = 11

local function open_pin(text, q, wall)
  local p = text and { struct.unpack(string.rep("<d", P_NUMBERS), text) }
    or { 0, 0, wall, q[Q_FLOOR] * q[Q_MEMORY], 0, 0, 0, 0, 0, 0, 0 }
  p[P_NUMBERS + 1] = nil
  local now = wall + p[P_SHIFT]
  if now < p[P_SEEN] then
    p[P_SHIFT], now, p.changed = p[P_SHIFT] + p[P_SEEN] - now, p[P_SEEN], true
  end
  return p, now
end

-- The balance of the retry budget now. It strives for what the floor alone earns in the
-- time that the budget remembers, so old first attempts count less and less.
local function balance(p, q, now)
  local floor = q[Q_FLOOR] * q[Q_MEMORY]
  return floor + (p[P_BALANCE] - floor) * math.exp((p[P_SEEN] - now) / q[Q_MEMORY])
end

local function save_pin(key, p, q, now)
  if now ~= p[P_SEEN] then
    p[P_BALANCE], p[P_SEEN] = balance(p, q, now), now
  end
  p[P_CALM] = (p[P_LATCH] > 0 or p[P_REFUSED] > 0) and UNKNOWN_TIME or p[P_COOL]
  local life = math.max(q[Q_LIFE], p[P_LATCH] > 0 and 2 * (p[P_UNTIL] - now) or 0)
  redis.call("SET", key, text_of(p, 1, P_NUMBERS), "PX", math.ceil(life / 1000))
end

-- As gate: why a call may not pass, for how long, and whether it would be the trial.
local function pin_gate(p, now)
  if p[P_LATCH] > 0 then
    if now < p[P_UNTIL] then
      return LATCHED, p[P_UNTIL] - now
    elseif now < p[P_TRIAL_UNTIL] then
      return LATCHED, math.min(p[P_TRIAL_UNTIL] - now, 1000000)
    end
  end
  if now < p[P_COOL] then
    return COOLING, p[P_COOL] - now
  end
  return PASS, 0, p[P_LATCH] > 0
end

local function take_trial(p, q, now, token)
  p[P_TRIAL], p[P_TRIAL_UNTIL], p.changed = token, now + q[Q_LEASE], true
end

-- Whether the fleet may retry once more: 0, or the time until it may.
local function retry_wait(p, q, now)
  local left = balance(p, q, now)
  if q[Q_RATIO] < 0 or left >= 1 - 1e-9 then
    return 0
  end
  local floor = q[Q_FLOOR] * q[Q_MEMORY]
  if floor <= 1 then
    return q[Q_MEMORY] -- it takes first attempts
  end
  return math.ceil(q[Q_MEMORY] * math.log((floor - left) / (floor - 1)))
end

-- A first attempt earns a share of a retry (lib/earning), and a retry spends one.
local function count_attempt(p, q, now, attempt, token)
  if q[Q_RATIO] >= 0 then
    local left, most = balance(p, q, now), q[Q_FLOOR] * q[Q_MEMORY]
    local more = attempt > 1 and -1 or share_earned(q[Q_RATIO], left - most, token)
    if more ~= 0 then
      p[P_BALANCE], p[P_SEEN], p.changed = left + more, now, true
    end
  end
end

local function unlatch(p, why, events)
  if p[P_LATCH] > 0 then
    events[#events + 1] = {
      "type", "latch", "from", latch_names[p[P_LATCH]], "to", "none", "reason", why,
    }
  end
  p[P_LATCH], p[P_UNTIL], p[P_SINCE], p[P_TRIAL], p[P_TRIAL_UNTIL] = 0, 0, 0, 0, 0
  p[P_REFUSED], p.changed = 0, true
end

local function latch(p, kind, life, now, asked, events)
  if p[P_LATCH] == 0 then
    p[P_SINCE] = now
  end
  if p[P_LATCH] ~= kind then
    local from = p[P_LATCH] > 0 and latch_names[p[P_LATCH]] or "none"
    events[#events + 1] = { "type", "latch", "from", from, "to", latch_names[kind] }
  end
  p[P_LATCH], p[P_UNTIL] = kind, math.max(p[P_UNTIL], now + math.max(life, asked))
end

-- Take in one report (lib/report).
local function report_to_pin(p, q, now, r, events)
  local class, trial = r.class, p[P_LATCH] > 0 and p[P_TRIAL_UNTIL] > 0 and p[P_TRIAL] == r.token
  if trial then
    p[P_TRIAL], p[P_TRIAL_UNTIL], p.changed = 0, 0, true
  end
  if class == SUCCESS then
    if trial then
      unlatch(p, "recovered", events)
    elseif p[P_REFUSED] > 0 then
      p[P_REFUSED], p.changed = 0, true
    end
  elseif class == QUOTA then
    p.changed = true
    latch(p, 1, q[Q_QUOTA], now, r.retry_after, events)
  elseif class == REFUSED then
    p[P_REFUSED], p.changed = p[P_REFUSED] + 1, true
    if p[P_REFUSED] >= q[Q_REFUSED] or trial then
      latch(p, 2, q[Q_CREDENTIAL], now, 0, events)
    end
  elseif class == THROTTLE and r.retry_after > 0 and q[Q_WIDE] > 0 then
    local till = now + math.min(r.retry_after, q[Q_LONGEST])
    if till > p[P_COOL] then
      if p[P_COOL] <= now then
        local wait = string.format("%.0f", till - now)
        events[#events + 1] = { "type", "cooldown", "reason", "throttled", "lasts", wait }
      end
      p[P_COOL], p.changed = till, true
    end
  end
end
