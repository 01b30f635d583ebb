-- Decide over an acquire of any kind at the time `wall` (lib/acquire_known has read), and return
-- what acquire does.
local texts, pin_text, scopes, place = { unpack(stored, 4) }, stored[1], #ARGV - 2, #KEYS - 4
local ask, policy = numbers(request), ARGV[scopes + 1]
local generation, earned, life = 1, nil, nil
local breaker, g
local attempt = math.floor(ask[MARKS] / 512) % 2 + 1
if policy ~= "" then
  if attempt == 1 then
    local head = redis.call("GETRANGE", KEYS[place], "0", "31")
    generation, earned, life = pass_calmly(policy, head ~= "" and head, pin_text, wall, ask[1])
  end
  if attempt > 1 or not generation then
    breaker = breaker_of()
    g = breaker.open(policy, place, redis.call("GET", KEYS[place]), place + 1, pin_text, wall)
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
