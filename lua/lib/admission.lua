-- The breaker as a call meets it: the circuit of its model, and the pin of its pool
-- (lib/breaker, lib/pin). Whoever asks, admits and writes, in this order, or writes nothing.
--
-- A script includes this and the libraries above within a function, `breaker_of`, and calls
-- that only where lib/calm cannot answer: building some forty functions costs as much as a
-- decision over two limits.
local pin, pin_time, pin_place, latched_by
local state_of_override = { OPEN, CLOSED, CLOSED }

-- The gate of the circuit at a place in KEYS, decoded where it is not calm, or `whole`.
-- Without a policy the breaker is off.
local function open_gate(policy, place, text, pin_at, pin_text, wall, whole)
  local g = { generation = 1, place = place, events = {} }
  if policy == "" then
    return g
  end
  g.q, g.model = breaker_policy(policy), string.sub(policy, 8 * Q_NUMBERS + 1)
  if text then
    local calm, generation, shift, seen = struct.unpack("<dddd", text)
    local now = wall + shift
    g.generation, whole = generation, whole or now < calm or now < seen
  end
  if whole then
    g.c, g.now = open_circuit(text, g.q, wall)
  end
  if not pin then
    pin_place = pin_at
    pin, pin_time = open_pin(pin_text, g.q, wall)
  end
  return g
end

-- The same where circuit, pin and events stand in KEYS one after the other.
local function gate_at(place, texts, policy, wall, whole)
  return open_gate(policy, place, texts[place], place + 1, texts[place + 1], wall, whole)
end

-- Why a call may not pass, and for how long. An operator who passes calls by hand passes a
-- latch too; of two refusals the longer one is told.
local function ask_gate(g, attempt, luck)
  if not g.q then
    return PASS, 0
  end
  local why, wait, probe = PASS, 0, false
  if g.c then
    why, wait, probe = gate(g.c, g.q, g.now, luck, g.events)
    g.generation = g.c[C_GENERATION]
  end
  g.probe, g.trial = false, false
  latched_by = g.c and g.c[C_LATCH] > 0 and 2 + g.c[C_LATCH] or 0
  if not g.c or g.c[C_OVERRIDE] == 0 then
    local pinned, longer, trial = pin_gate(pin, pin_time)
    if pinned ~= PASS and (why == PASS or longer > wait) then
      latched_by = pin[P_LATCH]
      return pinned, longer
    elseif why == PASS then
      g.probe, g.trial = probe, trial
      local left = attempt > 1 and retry_wait(pin, g.q, pin_time) or 0
      return left > 0 and RETRIES or PASS, left
    end
  end
  return why, wait
end

-- Take what passing costs, once every limit has room.
local function pass_gate(g, token, attempt)
  if not g.q then
    return
  end
  if g.probe then
    take_probe(g.c, g.q, g.now, token, g.events)
    g.generation = g.c[C_GENERATION]
  end
  if g.trial then
    take_trial(pin, g.q, pin_time, token)
  end
  count_attempt(pin, g.q, pin_time, attempt, token)
end

-- What the circuit does with calls now, an override considered.
local function gate_state(g)
  local c = g.c
  return c and (state_of_override[c[C_OVERRIDE]] or c[C_STATE]) or CLOSED
end

-- Write the circuit, where it has changed, and what has happened to it.
local function close_gate(g, wall)
  if g.c and g.c.changed then
    save_circuit(KEYS[g.place], g.c, g.q, g.now)
    g.c.changed = false
  end
  if #g.events > 0 then
    publish(g.events, KEYS[pin_place + 1], g.model, wall)
    g.events = {}
  end
end

local function close_pin(g)
  if pin and pin.changed then
    save_pin(KEYS[pin_place], pin, g.q, pin_time)
  end
end

-- How buckets of the model refill while it is let in again: the share of their rate, and
-- what that gains in a microsecond; nil when they refill as ever.
local function slowed(g)
  local share = g.c and ramp(g.c, g.q, g.now) or 1
  return share < 1 and { share, 0.9 / g.q[Q_RAMP] } or nil
end

-- What a lease remembers of the gate (lib/lease): worker, probe, early success, state, retry.
local function marks_of(g, marks)
  local worker, retry = marks % 32, math.floor(marks / 512) % 2
  return worker + (g.probe and 32 or 0) + 128 * gate_state(g) + 512 * retry
end

-- What a lease remembers of its report: the state then, and what the report was taken for.
local taken_for = { counted = 1, voted = 2, stale = 3, nolease = 4, ignored = 5 }
local function marks_with_report(g, marks, taken)
  return marks % 128 + 128 * gate_state(g) + marks % 1024 - marks % 512 + 1024 * taken_for[taken]
end

-- Take in how a call ended (lib/report), and write what that has changed.
local function tell_gate(g, r, luck, wall)
  report_to_pin(pin, g.q, pin_time, r, g.events)
  local taken = take_report(g.c, g.q, g.now, r, luck, g.events)
  g.generation = g.c[C_GENERATION]
  close_gate(g, wall)
  close_pin(g)
  return taken
end

return {
  open = open_gate,
  at = gate_at,
  ask = ask_gate,
  pass = pass_gate,
  close = close_gate,
  close_pin = close_pin,
  slowed = slowed,
  marks = marks_of,
  marks_with_report = marks_with_report,
  state = gate_state,
  lift = lift_override,
  renew_probe = renew_probe,
  tell = tell_gate,
  latch = function()
    return latched_by
  end,
}
