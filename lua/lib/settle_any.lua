-- Take in a report of any kind at the time `wall`, and return what settle does. The circuit is
-- long, and read where more than its head is needed.
local told, scopes, place = ARGV[#ARGV], #ARGV - 2, #KEYS - 4
local stored = redis.call("MGET", KEYS[place + 1], KEYS[#KEYS - 1], KEYS[#KEYS],
  unpack(KEYS, 1, scopes))
local texts, tag = { unpack(stored, 4) }, string.sub(told, 1, 8)
local report = numbers(told)
local first_token, told_limits = report[3] % 2 == 1, report[3] >= 2
local class, pause = report[4], report[7]
local lease, why, nth, held = open_lease(stored[2], report[2], wall)
if not lease and not (why == "X" and class == THROTTLE and pause > 0) then
  return tag .. why
end

-- A success of a circuit in which nothing has failed needs little.
local policy, breaker, g, counted = ARGV[scopes + 1], nil, nil, nil
local marks = lease and lease[MARKS] or 0
if policy ~= "" then
  if lease and class == SUCCESS and marks % 512 < 32 and report[6] == 0 then
    local width = struct.unpack("<d", policy, 33)
    local head = redis.call("GETRANGE", KEYS[place], "0", "103")
    counted = watch_calmly(head, width, stored[1], wall)
    counted = counted and counted.generation == lease[EPOCH] and counted
  end
  if not counted then
    breaker = breaker_of()
    local circuit = redis.call("GET", KEYS[place])
    g = breaker.open(policy, place, circuit, place + 1, stored[1], wall, true)
    slow[g.q[Q_PLACE]] = breaker.slowed(g)
  end
end

local function tell(generation)
  if counted then
    count_successes(counted, 1, with_worker(counted.workers, marks % 32))
    save_successes(KEYS[place], counted)
  elseif g then
    local taken = breaker.tell(g, {
      class = class, generation = generation, token = report[2], worker = marks % 32,
      slow = report[6] == 1, retry_after = pause, kind = report[5],
      begun = first_token, early = math.floor(marks / 64) % 2 == 1,
    }, report[2] / 2 ^ 52, wall)
    marks = breaker.marks_with_report(g, marks, taken)
  end
end

if not lease then
  -- Nothing moves any more, but how long the provider wants to be left alone still holds.
  tell(-1)
  return tag .. why
end

if told_limits or not first_token then
  if survey(texts, scopes, report, 7, wall) == STALE then
    return tag .. "B" .. struct.pack("<d", wall)
  elseif told_limits then
    local before = 7
    for scope = 1, #states do
      before = before + policies[scope][COUNT]
    end
    local learning = learning_of()
    local readings, model = learning.readings(report, before + 1, told)
    local events = learning.learn(readings, lease, why, nth, held, function(n, i)
      local used = report[7 + i]
      return class == THROTTLE and used >= 0 and lease[CHARGES + n] - used or 0
    end)
    learning.publish(events, KEYS[#KEYS - 2], model, wall)
  end
end

if first_token then
  if told_limits then
    save_all("", wall)
  end
  if math.floor(marks / 64) % 2 == 0 then
    tell(lease[EPOCH])
    lease[MARKS] = marks + 64
    redis.call("SET", KEYS[#KEYS - 1], text_of(lease, 1, #lease), "KEEPTTL")
  end
  return tag .. "G" .. text_of(lease, 1, #lease)
end

settle_lease(lease, nth, held, report, 7)
save_all("", wall)
tell(lease[EPOCH])
lease[SETTLED], lease[MARKS] = wall, marks
local text = text_of(lease, 1, #lease)
redis.call("SET", KEYS[#KEYS - 1], text, "PX", digits(math.ceil(lease[REMEMBER] / 1000)))
return tag .. (stored[3] and "g" or "G") .. text
