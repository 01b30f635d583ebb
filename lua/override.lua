-- Hold a circuit by hand, let go of it, or reset it.
--
-- KEYS    the circuit, a string; the pin of its pool, a string; the note of who holds it,
--         a string; the events of the pool, a stream
-- ARGV    the breaker's policy; the order: tag, override (0 none, 1 open, 2 closed,
--         3 observe, -1 reset), for how long (-1: until cleared), the generation that is
--         expected (-1: any), whether messages are sharded; the note; who orders it, and
--         why; the channel of the pool's queue
-- returns the tag, a letter: G done, C the generation is another; the generation

-- @include lib/clock
-- @include lib/layout
-- @include lib/numbers
-- @include lib/breaker
-- @include lib/earning
-- @include lib/pin
-- @include lib/events

local circuit, pin, note, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local tag, mode, life, expected, sharded = struct.unpack("<ddddd", ARGV[2])
local q, wall, events = breaker_policy(ARGV[1]), now_us(), {}
local model, actor, why = string.sub(ARGV[1], 8 * Q_NUMBERS + 1), ARGV[4], ARGV[5]
local c, now = open_circuit(redis.call("GET", circuit), q, wall)

if c[C_ORDER] == tag then -- this very order, whose answer was lost
  return struct.pack("<d", tag) .. "G" .. struct.pack("<d", c[C_GENERATION])
end

local function answer(letter)
  if c.changed then
    save_circuit(circuit, c, q, now)
  end
  publish(events, stream, model, wall)
  return struct.pack("<d", tag) .. letter .. struct.pack("<d", c[C_GENERATION])
end

lift_override(c, now, events)
local before = #events
if expected >= 0 and expected ~= c[C_GENERATION] then
  return answer("C")
end

c[C_ORDER], c.changed = tag, true
if mode >= 0 then
  if mode > 0 or c[C_OVERRIDE] > 0 then
    local till = mode == 0 and 0 or life < 0 and -1 or now + life
    set_override(c, mode, till, now, why, events)
  end
else
  local p, pin_now = open_pin(redis.call("GET", pin), q, wall)
  if p[P_LATCH] > 0 or p[P_REFUSED] > 0 or p[P_COOL] > 0 then
    unlatch(p, why, events)
    p[P_COOL] = 0
    save_pin(pin, p, q, pin_now)
  end
  if c[C_STATE] == CLOSED then
    events[#events + 1] = { "type", "reset", "reason", why }
  end
  local from = c[C_STATE]
  enter(c, CLOSED, now, why, events)
  if from == CLOSED then
    events[#events] = nil -- no transition: the reset above says it
  end
  c[C_OPENED], c[C_CLOSED_AT], c[C_COOL] = 0, 0, 0
  c[C_OVERRIDE], c[C_OVERRIDE_UNTIL], c[C_SILENT] = 0, 0, 0
end
for i = before + 1, #events do
  local event = events[i]
  event[#event + 1], event[#event + 2] = "actor", actor
end

if mode > 0 and life < 0 then
  redis.call("SET", note, ARGV[3])
elseif mode > 0 then
  redis.call("SET", note, ARGV[3], "PX", math.ceil(life / 1000) + 60000)
else
  redis.call("UNLINK", note)
end
-- Whoever waits for this circuit may have a turn: a hint for the replicas that hold them.
local command = sharded == 1 and "SPUBLISH" or "PUBLISH"
redis.pcall(command, ARGV[6], struct.pack("<d", -2))
return answer("G")
