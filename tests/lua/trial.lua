-- The breaker alone: what acquire, settle and override do with it, without any limit.
--
-- KEYS    the circuit, a string; the pin, a string; the events, a stream
-- ARGV    the breaker's policy; an order: what, then its numbers
-- returns msgpack: what was decided, and the events

-- @include lib/clock
-- @include lib/layout
-- @include lib/breaker
-- @include lib/report
-- @include lib/pin

local order, wall, events = numbers(ARGV[2]), now_us(), {}
local texts, q = redis.call("MGET", unpack(KEYS)), breaker_policy(ARGV[1])
local c, now = open_circuit(texts[1], q, wall)
local p, pin_now = open_pin(texts[2], q, wall)

local function done(...)
  if c.changed then
    save_circuit(KEYS[1], c, q, now)
  end
  if p.changed then
    save_pin(KEYS[2], p, q, pin_now)
  end
  return cmsgpack.pack({ { ... }, events, c[C_GENERATION], ramp(c, q, now) })
end

if order[1] == 1 then -- acquire: token, room, attempt, luck
  local token, room, attempt, luck = order[2], order[3], order[4], order[5]
  local why, wait, probe, trial = admission(c, q, now, p, pin_now, attempt, luck, events)
  if why ~= PASS or room == 0 then
    return done(why, wait, 0)
  end
  admit(c, q, now, p, pin_now, attempt, token, probe, trial, events)
  return done(PASS, 0, probe and 1 or 0)
elseif order[1] == 2 then -- report: class, generation, token, worker, slow, asked, early, luck
  local r = {
    class = order[2], generation = order[3], token = order[4], worker = order[5],
    slow = order[6] > 0, retry_after = order[7], early = order[8] > 0, kind = 4,
  }
  report_to_pin(p, q, pin_now, r, events)
  local taken = take_report(c, q, now, r, order[9], events)
  return done(taken)
end
