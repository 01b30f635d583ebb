-- Take from every limit of the chain, or from none; never past somebody who waits.
--
-- KEYS    the scopes, strings; the slots of their concurrency limits, sorted sets; the
--         circuit of the model, a string; the pin of the pool, a string; the events of the
--         pool, a stream; the lease, a string; the queue, a string
-- ARGV    the policy of each scope; that of the breaker; last, the request as it stands in
--         a lease: nonce, fingerprint, time to live, time to remember, 0, 0, 1, marks,
--         number of limits, the amount for each
-- returns the nonce, a letter, a body:
--         G granted, R repeated: the lease (lib/lease)
--         C conflict: the request id was used with other parameters; nothing
--         D denied: number of the binding limit, time to wait (-1 never), the states
--         P the breaker does not let it pass: why (lib/breaker), time to wait (-1 nobody
--           knows), what the pool is latched by
--         Q somebody waits in this pool: enqueue decides; nothing
--         B boundaries stale: the server's time

-- @include lib/clock
-- @include lib/earning
-- @include lib/calm

local stored, request = redis.call("MGET", unpack(KEYS)), ARGV[#ARGV]
local known, tag = stored[#KEYS - 1], string.sub(request, 1, 8)
if known then
  local same = string.sub(known, 9, 16) == string.sub(request, 9, 16)
  return tag .. (same and "R" .. known or "C")
elseif stored[#KEYS] then
  return tag .. "Q"
end

-- @include lib/layout
-- @include lib/numbers
-- @include lib/bucket
-- @include lib/sliding
-- @include lib/calendar
-- @include lib/concurrency
-- @include lib/ramp
-- @include lib/windows
-- @include lib/learned
-- @include lib/scope
-- @include lib/limits
-- @include lib/lease
-- @include lib/granting
-- @include lib/answer

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local texts, scopes, place, wall = stored, #ARGV - 2, #KEYS - 4, now_us()
local ask, policy = numbers(request), ARGV[scopes + 1]
local generation, earned, life = 1, nil, nil
local breaker, g
local attempt = math.floor(ask[MARKS] / 512) % 2 + 1
if policy ~= "" then
  if attempt == 1 then
    generation, earned, life = pass_calmly(policy, texts[place], texts[place + 1], wall, ask[1])
  end
  if attempt > 1 or not generation then
    breaker = breaker_of()
    g = breaker.at(place, texts, policy, wall)
    local why, pause = breaker.ask(g, attempt, ask[1] / 2 ^ 52)
    if why ~= PASS then
      breaker.close(g, wall)
      breaker.close_pin(g)
      return tag .. "P" .. struct.pack("<ddd", why, pause, breaker.latch())
    end
    slow[g.q[Q_PLACE]] = breaker.slowed(g)
  end
end
local worst, wait, refused = survey(texts, scopes, ask, CHARGES, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
elseif worst > 0 then
  begin_anew(wall)
  if g then
    breaker.close(g, wall)
  end
  return tag .. "D" .. struct.pack("<dd", worst, wait) .. texts_of_states()
end

local marks = ask[MARKS]
if g then
  breaker.pass(g, ask[1], attempt)
  generation, marks = g.generation, breaker.marks(g, marks)
elseif earned then
  redis.call("SET", KEYS[place + 1], earned, "PX", math.ceil(life / 1000))
end
local last = take(scopes, ask, refused)
if refused or generation ~= 1 or marks ~= ask[MARKS] then
  ask[EPOCH], ask[MARKS] = generation, marks
  request = text_of(ask, 1, last)
end
local lease = save_lease(KEYS[#KEYS - 1], save_all(request, wall), ask)
if g then
  breaker.close(g, wall)
  breaker.close_pin(g)
end
return tag .. "G" .. lease
