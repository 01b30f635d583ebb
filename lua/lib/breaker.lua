-- The circuit of one resource: closed, open or half-open, for the whole fleet.
--
-- The service sends a policy with each call, and the store keeps a state (lib/layout):
--
--   policy  life of the state; share of retries, retries per microsecond, memory of the
--           retry budget; width of a bucket of the window, fewest calls that are judged,
--           share of failures, share of slow ones, failures in a row, distinct workers,
--           first open time, longest, jitter, time that takes one back, probes at once,
--           successes that close, life of a probe, lost probes that reopen, share of
--           throttled ones, ramp after closing, least length of a run; life of a quota
--           latch, of a credential latch, refused credentials in a row, whether a cooldown
--           is the whole pool's; the place of the model's scope in its chain (0: it has
--           none); then the model's name as text
--   state   time from which it is calm, generation, skew, time of the last write, width of
--           a bucket, whether the window knows of successes only, number of the newest
--           bucket; 12 buckets, the newest first (ok, failed, slow, throttled, workers that
--           failed, all workers); state (0 closed, 1 open, 2 half-open), time it was
--           entered, open until, times opened, closed at, cooling until, override (0 none,
--           1 open, 2 closed, 3 observe), override until (-1: until cleared), silent about
--           would_open until, probes passed, probes lost, failures in a row, their workers,
--           time of the first, the last three errors (kind, time), the last order of an
--           operator, what the model is latched by (0 nothing, 1 quota, 2 credentials),
--           refused credentials in a row, the last probe that passed; then per probe under
--           way its token and its deadline
--
-- Workers are sets of 32 bits. A circuit that nobody has written is closed, generation 1.
-- Every transition makes a new generation, and reports of an older one do not count.
-- Functions here change a decoded circuit in memory; what they did is `changed`, and
-- nothing is stored before save_circuit.
local Q_LIFE, Q_RATIO, Q_FLOOR, Q_MEMORY, Q_SPAN, Q_LEAST = 1, 2, 3, 4, 5, 6
local Q_FAILURES, Q_SLOW, Q_RUN, Q_WORKERS, Q_OPEN, Q_LONGEST = 7, 8, 9, 10, 11, 12
local Q_JITTER, Q_DECAY, Q_PROBES, Q_NEEDED, Q_LEASE, Q_LOST = 13, 14, 15, 16, 17, 18
local Q_THROTTLED, Q_RAMP, Q_BURST, Q_QUOTA, Q_CREDENTIAL = 19, 20, 21, 22, 23
local Q_REFUSED, Q_WIDE, Q_PLACE, Q_NUMBERS = 24, 25, 26, 26

local C_CALM, C_GENERATION, C_SHIFT, C_SEEN, C_SPAN, C_SPOTLESS, C_NEWEST = 1, 2, 3, 4, 5, 6, 7
local C_WINDOW, BUCKETS, FIELDS = 8, 12, 6
local C_STATE, C_SINCE, C_OPEN_UNTIL, C_OPENED, C_CLOSED_AT, C_COOL = 80, 81, 82, 83, 84, 85
local C_OVERRIDE, C_OVERRIDE_UNTIL, C_SILENT, C_PASSED, C_LOST = 86, 87, 88, 89, 90
local C_RUN, C_RUN_WORKERS, C_RUN_SINCE, C_ERRORS, C_ORDER = 91, 92, 93, 94, 100
local C_LATCH, C_REFUSALS, C_VOTED, C_PROBES = 101, 102, 103, 104

local CLOSED, OPEN, HALF = 0, 1, 2
local FORCED, OBSERVED = 1, 3
local UNKNOWN_TIME = 1000000000000000000

-- Why a call may not pass.
local PASS, NOT_OPEN_YET, PROBING, COOLING, HELD_OPEN, LATCHED, RETRIES = 0, 1, 2, 3, 4, 5, 6

-- What became of a call.
local SUCCESS, FAILURE, THROTTLE, NEUTRAL, QUOTA, REFUSED = 1, 2, 3, 4, 5, 6
local QUOTA_OF_MODEL, REFUSED_OF_MODEL = 7, 8

local state_names = { "closed", "open", "half_open" }
local override_names = { "none", "open", "closed", "observe" }
local latch_names = { "quota_exhausted", "credentials_refused" }

local function breaker_policy(text)
  return { struct.unpack(string.rep("<d", Q_NUMBERS), text) }
end

local function clear_window(c)
  c[C_SPOTLESS] = 1
  for i = C_WINDOW, C_STATE - 1 do
    c[i] = 0
  end
end

local function void_probes(c)
  for i = #c, C_PROBES, -1 do
    c[i] = nil
  end
end

-- Decode a circuit and bring its clock to now. As in lib/scope, time never runs
-- backwards inside: a clock that steps back is adopted, and `changed` makes the caller
-- write that down, or deadlines would wait until the clock has caught up.
local function open_circuit(text, q, wall)
  local c = text and numbers(text)
  if c then
    c[#c] = nil
  else
    c = { 0, 1, 0, wall, q[Q_SPAN], 1, math.floor(wall / q[Q_SPAN]) }
    for i = C_WINDOW, C_PROBES - 1 do
      c[i] = 0
    end
  end
  local now = wall + c[C_SHIFT]
  if now < c[C_SEEN] then
    c[C_SHIFT], now, c.changed = c[C_SHIFT] + c[C_SEEN] - now, c[C_SEEN], true
  end
  if c[C_SPAN] ~= q[Q_SPAN] then
    c[C_SPAN], c[C_NEWEST] = q[Q_SPAN], math.floor(now / q[Q_SPAN])
    clear_window(c)
  end
  return c, now
end

-- Whether nothing has ever happened but successes: a circuit that nobody has written is the
-- same, once these are out of the window.
local function is_unremarkable(c, now)
  return c[C_GENERATION] == 1
    and c[C_STATE] == CLOSED
    and c[C_SPOTLESS] == 1
    and c[C_COOL] <= now
    and c[C_OVERRIDE] + c[C_ORDER] + c[C_LATCH] + c[C_REFUSALS] + c[C_RUN] + c[C_ERRORS] == 0
    and #c < C_PROBES
end

-- Write a circuit back. It expires, unless an operator holds it until further notice; soon when
-- nothing has happened, since callers make up models.
local function save_circuit(key, c, q, now)
  c[C_SEEN], c[C_CALM] = now, UNKNOWN_TIME
  if c[C_STATE] == CLOSED and c[C_OVERRIDE] == 0 then
    c[C_CALM] = math.max(c[C_COOL], c[C_CLOSED_AT] > 0 and c[C_CLOSED_AT] + q[Q_RAMP] or 0)
  end
  local text, held = text_of(c, 1, #c), c[C_OVERRIDE] > 0 and c[C_OVERRIDE_UNTIL] or 0
  if held < 0 then
    redis.call("SET", key, text)
  else
    local life = math.max(q[Q_LIFE], held - now + q[Q_LONGEST])
    if is_unremarkable(c, now) then
      life = (BUCKETS + 1) * q[Q_SPAN]
    end
    redis.call("SET", key, text, "PX", math.ceil(life / 1000))
  end
end

local function note_change(events, from, to, why, c)
  events[#events + 1] = {
    "type", "breaker", "from", state_names[from + 1], "to", state_names[to + 1],
    "reason", why, "generation", string.format("%.0f", c[C_GENERATION]),
  }
end

local function note_override(events, from, to, why, c)
  events[#events + 1] = {
    "type", "override", "from", override_names[from + 1], "to", override_names[to + 1],
    "reason", why, "generation", string.format("%.0f", c[C_GENERATION]),
  }
end

-- A new state is a new generation and starts from nothing.
local function enter(c, state, now, why, events)
  local from = c[C_STATE]
  c[C_STATE], c[C_SINCE], c[C_GENERATION], c.changed = state, now, c[C_GENERATION] + 1, true
  c[C_PASSED], c[C_LOST], c[C_RUN], c[C_RUN_WORKERS], c[C_RUN_SINCE] = 0, 0, 0, 0, 0
  c[C_REFUSALS], c[C_VOTED], c[C_LATCH] = 0, 0, state == HALF and c[C_LATCH] or 0
  clear_window(c)
  void_probes(c)
  note_change(events, from, state, why, c)
end

-- What a healthy time has earned back of the times that the circuit has opened.
local function earn_back(c, q, now)
  if c[C_STATE] == CLOSED then
    c[C_OPENED] = math.max(0, c[C_OPENED] - math.floor((now - c[C_CLOSED_AT]) / q[Q_DECAY]))
  end
end

local function open_until(c, till, now, why, events)
  c[C_OPEN_UNTIL] = till
  enter(c, OPEN, now, why, events)
  local event = events[#events]
  event[#event + 1], event[#event + 2] = "lasts", string.format("%.0f", till - now)
end

-- Open, longer each time: twice as long as the last time, less what a healthy time since
-- has earned back. `asked` is the provider's Retry-After, `luck` in [0, 1) spreads.
local function trip(c, q, now, asked, luck, why, events)
  earn_back(c, q, now)
  c[C_OPENED] = c[C_OPENED] + 1
  local open = math.min(q[Q_LONGEST], q[Q_OPEN] * 2 ^ (c[C_OPENED] - 1))
  open = math.floor(open * (1 + q[Q_JITTER] * (2 * luck - 1)))
  open_until(c, now + math.max(open, math.min(asked, q[Q_LONGEST])), now, why, events)
end

-- Latch the model alone: its quota is used up, or its credentials are refused. That is an
-- opening of a length of its own, after which probes find out as ever; one that is refused
-- again latches it again.
local function latch_model(c, q, now, kind, asked, events)
  earn_back(c, q, now)
  local life = kind == 1 and math.max(q[Q_QUOTA], asked) or q[Q_CREDENTIAL]
  open_until(c, now + life, now, latch_names[kind], events)
  c[C_LATCH] = kind
end

-- Hold the circuit by hand, or let go of it (mode 0): calls under way no longer count.
local function set_override(c, mode, till, now, why, events)
  local from = c[C_OVERRIDE]
  c[C_OVERRIDE], c[C_OVERRIDE_UNTIL], c[C_SILENT] = mode, till, 0
  c[C_GENERATION], c.changed = c[C_GENERATION] + 1, true
  note_override(events, from, mode, why, c)
  if c[C_STATE] == HALF then
    c[C_OPEN_UNTIL] = now
    enter(c, OPEN, now, "override", events)
  end
end

-- An override that is over is lifted by whoever looks first.
local function lift_override(c, now, events)
  local till = c[C_OVERRIDE_UNTIL]
  if c[C_OVERRIDE] > 0 and till >= 0 and now >= till then
    set_override(c, 0, 0, now, "expired", events)
  end
end

-- Whether a call may pass: why not, for how long not (-1: nobody knows), and whether it
-- would be a probe. Nothing is taken: see take_probe.
local function gate(c, q, now, luck, events)
  lift_override(c, now, events)
  if c[C_OVERRIDE] == FORCED then
    local till = c[C_OVERRIDE_UNTIL]
    return HELD_OPEN, till < 0 and -1 or till - now
  elseif c[C_OVERRIDE] > 0 then
    return PASS, 0
  end
  local state, cool = c[C_STATE], c[C_COOL]
  if state == HALF then
    local at, lost = C_PROBES, 0
    while at < #c do
      if c[at + 1] <= now then
        table.remove(c, at)
        table.remove(c, at)
        lost = lost + 1
      else
        at = at + 2
      end
    end
    if lost > 0 then
      c[C_LOST], c.changed = c[C_LOST] + lost, true
      events[#events + 1] = {
        "type", "probe_lost", "count", string.format("%.0f", lost),
        "generation", string.format("%.0f", c[C_GENERATION]),
      }
      if c[C_LOST] >= q[Q_LOST] then
        trip(c, q, now, 0, luck, "probes_lost", events)
        state = OPEN
      end
    end
  end
  if state == OPEN and now < c[C_OPEN_UNTIL] then
    local why = c[C_LATCH] > 0 and LATCHED or NOT_OPEN_YET
    return why, math.max(c[C_OPEN_UNTIL], cool) - now
  elseif cool > now then
    return COOLING, cool - now
  elseif state == HALF then
    local held, first = (#c - C_PROBES + 1) / 2, now + 1000000
    if held >= q[Q_PROBES] or held + c[C_PASSED] >= q[Q_NEEDED] then
      for at = C_PROBES, #c, 2 do
        first = math.min(first, c[at + 1])
      end
      return PROBING, first - now
    end
  end
  return PASS, 0, state ~= CLOSED
end

-- Let a call probe that the gate has passed, once everything else has room for it.
local function take_probe(c, q, now, token, events)
  if c[C_STATE] == OPEN then
    enter(c, HALF, now, "expired", events)
  end
  c[#c + 1], c[#c + 2], c.changed = token, now + q[Q_LEASE], true
end

-- The holder of a probe is alive: its lease begins anew.
local function renew_probe(c, q, now, token)
  for at = C_PROBES, #c, 2 do
    if c[at] == token and c[at + 1] > now then
      c[at + 1], c.changed = now + q[Q_LEASE], true
    end
  end
end

-- After closing, the share of their rates at which buckets refill: from a tenth to all.
local function ramp(c, q, now)
  if c[C_STATE] ~= CLOSED or c[C_CLOSED_AT] == 0 or now >= c[C_CLOSED_AT] + q[Q_RAMP] then
    return 1
  end
  return 0.1 + 0.9 * (now - c[C_CLOSED_AT]) / q[Q_RAMP]
end
