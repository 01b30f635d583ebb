-- The breaker alone: what acquire, settle and override do with it, without any limit.
--
-- KEYS    the circuit, a string; the pin, a string; the events, a stream
-- ARGV    the breaker's policy; an order: what, then its numbers
-- returns msgpack: what was decided, and the events

-- @include lib/clock
-- @include lib/layout
-- @include lib/numbers
-- @include lib/earning
-- @include lib/calm
-- @include lib/success

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local policy, order, wall = ARGV[1], numbers(ARGV[2]), now_us()
local texts = redis.call("MGET", unpack(KEYS))

local function answer(decided, events, generation, share)
  return cmsgpack.pack({ decided, events, generation, share })
end

if order[1] == 1 then -- acquire: token, room, attempt, luck
  local token, room, attempt, luck = order[2], order[3], order[4], order[5]
  if attempt == 1 then
    local generation, earned, life = pass_calmly(policy, texts[1], texts[2], wall, token)
    if generation then
      if room == 1 and earned then
        redis.call("SET", KEYS[2], earned, "PX", life / 1000)
      end
      return answer({ PASS, 0, 0 }, {}, generation, 1)
    end
  end
  local breaker = breaker_of()
  local g = breaker.at(1, texts, policy, wall)
  local why, wait = breaker.ask(g, attempt, luck)
  local granted = why == PASS and room == 1
  if granted then
    breaker.pass(g, token, attempt)
  end
  local events, share = g.events, breaker.slowed(g)
  breaker.close(g, wall)
  breaker.close_pin(g)
  local probe = granted and g.probe and 1 or 0
  return answer({ why, wait, probe }, events, g.generation, share and share[1] or 1)
end

-- report: class, generation, token, worker, slow, asked, early, luck, begun
local r = {
  class = order[2], generation = order[3], token = order[4], worker = order[5],
  slow = order[6] > 0, retry_after = order[7], early = order[8] > 0, kind = 4,
  begun = order[10] > 0,
}
if r.class == SUCCESS and not r.slow and not r.early and not r.begun then
  local width = struct.unpack("<d", policy, 33)
  local counted = watch_calmly(texts[1] or "", width, texts[2], wall)
  if counted and counted.generation == r.generation then
    count_successes(counted, 1, with_worker(counted.workers, r.worker))
    save_successes(KEYS[1], counted)
    return answer({ "counted" }, {}, r.generation, 1)
  end
end
local breaker = breaker_of()
local g = breaker.at(1, texts, policy, wall, true)
local events = g.events
local taken = breaker.tell(g, r, order[9], wall)
local share = breaker.slowed(g)
return answer({ taken }, events, g.generation, share and share[1] or 1)
