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
-- @include lib/events
-- @include lib/admission

local order, wall = numbers(ARGV[2]), now_us()
local texts = redis.call("MGET", unpack(KEYS))
local g = open_gate(ARGV[1], 1, texts[1], 2, texts[2], wall)

local function done(...)
  close_gate({ c = g.c, q = g.q, now = g.now, place = g.place, events = {} }, wall)
  close_pin(g)
  local share = slowed(g)
  return cmsgpack.pack({ { ... }, g.events, g.generation, share and share[1] or 1 })
end

if order[1] == 1 then -- acquire: token, room, attempt, luck
  local token, room, attempt, luck = order[2], order[3], order[4], order[5]
  local why, wait = ask_gate(g, attempt, luck)
  if why ~= PASS or room == 0 then
    return done(why, wait, 0)
  end
  pass_gate(g, token, attempt)
  return done(PASS, 0, g.probe and 1 or 0)
elseif order[1] == 2 then -- report: class, generation, token, worker, slow, asked, early, luck
  local r = {
    class = order[2], generation = order[3], token = order[4], worker = order[5],
    slow = order[6] > 0, retry_after = order[7], early = order[8] > 0, kind = 4,
  }
  if not g.c then
    g.c, g.now = open_circuit(texts[1], g.q, wall)
  end
  report_to_pin(pin, g.q, pin_time, r, g.events)
  local taken = take_report(g.c, g.q, g.now, r, order[9], g.events)
  g.generation = g.c[C_GENERATION]
  return done(taken)
end
