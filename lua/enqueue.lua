-- Acquire where somebody waits, or who may wait: take, stand in line, or fetch a grant.
--
-- KEYS    as for acquire without the queue; then the queue, a string; the order, a sorted
--         set; the front, a sorted set; the sleepers, a sorted set; the grants, a sorted
--         set; the book, a hash; the tickets, a hash
-- ARGV    the policy of each scope; that of the breaker; the request, as for acquire; the
--         terms: longest wait, replica, step, cost, class, share, period, shape of the
--         chain, most waiters, time to keep the queue in milliseconds, number of scopes
--         before the model's, whether the model has one, then for each limit the need
--         ahead that can be served within the longest wait (-1: not known), and the part of
--         their share that lines which wait now are expected to go on using; last, the
--         names: digest of the request, id of the line, resource and tenant
-- returns the nonce, a letter, a body:
--         G granted, R repeated or fetched: the lease (lib/lease)
--         C conflict: nothing
--         P the breaker does not let it pass, and will not in time: as for acquire
--         D denied, L would wait too long, F the queue is full, W waits, T has waited its
--           time: number of the binding limit, time
--           to wait for it (-1 never), place in line, waiters, when it began, until when it
--           may wait, the need ahead for each limit, the states, the need for each limit
--           if the lines that wait now go on using their share
--         B boundaries stale: the server's time

-- @include lib/clock
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
-- @include lib/shortage
-- @include lib/waiting
-- @include lib/queue

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/earning
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local scopes = #ARGV - 4
local request, terms, names = ARGV[scopes + 2], all(ARGV[scopes + 3]), ARGV[scopes + 4]
local tag, print = string.sub(request, 1, 8), string.sub(request, 9, 16)
local lease_key = KEYS[#KEYS - 7]
local digest, id = string.sub(names, 1, DIGEST), string.sub(names, DIGEST + 1, DIGEST + ID)
local model, tenant = string.sub(id, 1, 8), string.sub(id, 9, 16)
local max_wait, replica, most, keep = terms[1], terms[2], terms[9], terms[10]

local known = redis.call("GET", lease_key)
if known then
  return tag .. (string.sub(known, 9, 16) == print and "R" .. known or "C")
end

local wall = now_us()
local t, text, its_id, its_names = open_ticket(digest)
if t and string.sub(text, 9, 16) ~= print then
  return tag .. "C"
elseif t and t[STATE] == 1 then
  local lease = numbers(text)
  save_lease(lease_key, text, lease)
  redis.call("HDEL", tickets, digest)
  redis.call("ZREM", grants, digest .. struct.pack("<d", t[2]))
  if redis.call("ZCARD", grants) == 0 then
    close_queue(open_queue(), keep)
  end
  return tag .. "R" .. text
end

local circuit = #KEYS - 10
local texts, ask = redis.call("MGET", unpack(KEYS, 1, circuit + 1)), numbers(request)
local q = open_queue()
local attempt, breaker = math.floor(ask[MARKS] / 512) % 2 + 1, breaker_of()
local g = breaker.at(circuit, texts, ARGV[scopes + 1], wall)
local why, pause = breaker.ask(g, t and 1 or attempt, ask[1] / 2 ^ 52)
if g.c then
  slow[g.q[Q_PLACE]] = breaker.slowed(g)
end
local worst, wait, refused = survey(texts, scopes, ask, CHARGES, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end
begin_anew(wall)
breaker.close(g, wall)

-- An opening, a cooldown or a probe under way is waited for, where it ends in time. The
-- budget of retries is not: others would only wait longer.
if why ~= PASS then
  local deadline = t and math.min(t[DEADLINE], wall + max_wait) or wall + max_wait
  if why == RETRIES or pause < 0 or wall + pause > deadline or max_wait <= 0 then
    if t and t[STATE] == 0 then
      leave(its_id, digest, t, text, q, open_model(string.sub(its_id, 1, 8), q), wall)
      close_queue(q, keep)
    end
    return tag .. "P" .. struct.pack("<ddd", why, pause, breaker.latch())
  end
  wait = wait == NEVER and NEVER or math.max(wait, pause)
end

local m, pool, shared = open_model(model, q), 0, 0
for scope = 1, terms[11] + terms[12] do
  shared = shared + policies[scope][COUNT]
  pool = scope <= terms[11] and shared or pool
end

local function answer(letter, place, since, deadline, needs, more)
  local head = { worst, wait, place, q[WAITERS], since, deadline }
  for i = 1, ask[LIMITS] do
    head[#head + 1] = needs[i]
  end
  local figures = text_of(head, 1, #head) .. texts_of_states()
  for i = 1, ask[LIMITS] do
    figures = figures .. struct.pack("<d", more[i])
  end
  return tag .. letter .. figures
end

if t and t[STATE] == 2 then
  redis.call("HDEL", tickets, digest)
  redis.call("ZREM", grants, digest .. struct.pack("<d", t[HOLDER]))
  close_queue(q, keep)
  local nothing = setmetatable({}, { __index = function() return 0 end })
  return answer("T", 0, t[BEGAN], t[DEADLINE], nothing, nothing)
elseif t then
  local line = open_line(its_id)
  local member = place_of(its_id, t, digest)
  local place = redis.call("ZLEXCOUNT", order, "[" .. its_id, "(" .. member)
  t[DEADLINE] = math.min(t[DEADLINE], wall + max_wait)
  local needs, _, more = ahead(its_id, line, place, t[STEP], ask[LIMITS], pool, shared, q, m)
  if wall >= t[DEADLINE] then
    leave(its_id, digest, t, text, q, open_model(string.sub(its_id, 1, 8), q), wall)
    close_queue(q, keep)
    return answer("T", place, t[BEGAN], t[DEADLINE], needs, more)
  end
  t[SEEN], t[HOLDER] = wall, replica
  if t[SHAPE] ~= terms[8] then
    -- Another policy is in force: the place stays, the amounts are the new ones.
    add_needs(line, text, -1)
    text, t[SHAPE], t[NEEDS] = request, terms[8], ask[LIMITS]
    add_needs(line, text, 1)
    save_line(its_id, line)
  end
  save_ticket(digest, t, text, its_id, its_names)
  return answer("W", place, t[BEGAN], t[DEADLINE], needs, more)
end

local new = { 0, wall, wall + max_wait, wall, replica, 0 }
for i = 3, 7 do
  new[#new + 1] = terms[i]
end
new[PATIENT], new[SHAPE], new[NEEDS] = 0, terms[8], ask[LIMITS]

local line = open_line(id)
local needs, turn, more = ahead(
  id, line, line and line[LINE_COUNT] or 0, terms[3], ask[LIMITS], pool, shared, q, m
)
if wait == NEVER then
  return answer("D", 0, wall, wall, needs, more)
end

-- Nobody barges: who needs what an earlier waiter is short of stands behind it.
local behind = why ~= PASS or line and true
if not behind and q[WAITERS] > 0 then
  local i = CHARGES
  behind = redis.call("HEXISTS", book, "z" .. tenant) == 1
  if rank_of(model, new, wall) == 0 then
    turn = -1
  end
  for scope = 1, terms[11] + terms[12] do
    if scope <= terms[11] then
      behind = behind or needs_closed(scope, ask, i, q, POOL_CLOSED, turn)
    elseif next_seat(model) then -- otherwise nobody waits who could have closed it
      behind = behind or needs_closed(scope, ask, i, m, MODEL_CLOSED, turn)
    end
    i = i + policies[scope][COUNT]
  end
end
if worst == 0 and not behind then
  if q[WAITERS] > 0 then
    -- It passes somebody: that counts as its turn, and the next one of its kind comes later.
    spend_credit(model, new, wall)
    if turn >= 0 then
      m[MODEL_VIRTUAL] = m[MODEL_VIRTUAL] + terms[3]
      q[VIRTUAL] = math.max(q[VIRTUAL], turn)
    end
    save_model(model, m)
    close_queue(q, keep)
  end
  breaker.pass(g, ask[1], attempt)
  local last = take(scopes, ask, refused)
  ask[EPOCH], ask[MARKS] = g.generation, breaker.marks(g, ask[MARKS])
  request = text_of(ask, 1, last)
  local lease = save_lease(lease_key, save_all(request, wall), ask)
  breaker.close(g, wall)
  breaker.close_pin(g)
  return tag .. "G" .. lease
end

local place = line and line[LINE_COUNT] or 0
if max_wait <= 0 then
  return answer("D", place, wall, wall, needs, more)
elseif q[WAITERS] >= most then
  return answer("F", place, wall, wall, needs, more)
end
local rooms = {}
for scope = 1, scopes do
  add_rooms(scope, rooms)
end
local going_on = terms[13 + ask[LIMITS]]
for i = 1, ask[LIMITS] do
  local allowed = terms[12 + i]
  local need = needs[i] + going_on * (more[i] - needs[i]) + ask[CHARGES + i]
  if allowed >= 0 and need > rooms[i] + allowed then
    return answer("L", place, wall, wall, needs, more)
  end
end

-- The first of a line closes what it is short of, as a pass would: whoever comes before the
-- next pass stands behind it. Short of a limit of its tenant it closes nothing for others.
local function close_behind_it()
  line = open_line(id)
  turn = line[LINE_RANK] == 0 and -1 or line[LINE_TAG] + m[BEHIND_POOL]
  local i, first_of_tenant = CHARGES + ask[LIMITS], terms[11] + terms[12] + 1
  for scope = scopes, 1, -1 do
    i = i - policies[scope][COUNT]
    local short = shortage(scope, ask, i, wall, refused or {})
    if scope >= first_of_tenant and short then
      return
    elseif scope < first_of_tenant then
      local closed, from = m, MODEL_CLOSED
      if scope <= terms[11] then
        closed, from = q, POOL_CLOSED
      end
      local blocked = needs_closed(scope, ask, i, closed, from, math.huge)
      close_short(short or {}, closed, from, turn)
      if short or blocked then
        return
      end
    end
  end
end

local name = string.sub(names, DIGEST + ID + 1)
if join(id, digest, new, request, name, q, m, wall) and why == PASS and worst > 0 then
  close_behind_it()
end
save_model(model, m)
close_queue(q, keep)
return answer("W", place, wall, new[DEADLINE], needs, more)
