-- Weighted fair queueing: who comes next, and what stands before a waiter.
--
-- The head of a line has the tag max(virtual time of the model, tag of the head before)
-- + step, where step is the waiter's cost over its weight; virtual time is the tag of the
-- last head served. (Self-clocked fair queueing, S. J. Golestani, 1994.) Tags are given
-- when a waiter becomes a head, so that one that leaves costs those behind it nothing.

-- A class of priorities with a reserved share earns it of every period and saves up to one
-- period's worth: what it has not used, others have borrowed, and it is served first until
-- that is back.
local function credit_of(model, t, wall)
  local text = redis.call("HGET", book, "c" .. model .. string.char(t[CLASS]))
  if not text then
    return t[SHARE]
  end
  local level, time = struct.unpack("<dd", text)
  return math.min(t[SHARE], level + math.max(0, wall - time) * t[SHARE] / t[PERIOD])
end

local function spend_credit(model, t, wall)
  if t[SHARE] > 0 then
    local level = credit_of(model, t, wall) - t[COST]
    local field = "c" .. model .. string.char(t[CLASS])
    redis.call("HSET", book, field, struct.pack("<dd", level, wall))
  end
end

local function rank_of(model, t, wall)
  if t[SHARE] == 0 then
    return 1
  end
  return credit_of(model, t, wall) >= math.min(t[COST], t[SHARE]) - 1e-9 and 0 or 1
end

-- The lines of a tenant that sleep, in a row; `without` is left out.
local function sleepers(tenant, without)
  local ids, rest = redis.call("HGET", book, "z" .. tenant) or "", ""
  for i = 1, #ids, ID do
    local id = string.sub(ids, i, i + ID - 1)
    if id ~= without then
      rest = rest .. id
    end
  end
  return rest
end

local function note_sleepers(tenant, ids)
  if ids == "" then
    redis.call("HDEL", book, "z" .. tenant)
  else
    redis.call("HSET", book, "z" .. tenant, ids)
  end
end

local function unseat(id, line)
  if line[LINE_DUE] > 0 then
    redis.call("ZREM", asleep, id)
    local tenant = string.sub(id, 9, 16)
    note_sleepers(tenant, sleepers(tenant, id))
    line[LINE_DUE] = 0
  else
    redis.call("ZREM", front, seat_of(id, line))
  end
end

-- A line whose head waits for a limit of its own tenant leaves the front until `due`.
local function put_to_sleep(id, line, due)
  unseat(id, line)
  line[LINE_DUE] = due
  redis.call("ZADD", asleep, due, id)
  local tenant = string.sub(id, 9, 16)
  note_sleepers(tenant, sleepers(tenant, id) .. id)
  save_line(id, line)
end

local function wake(id, m)
  local line = open_line(id)
  if line and line[LINE_DUE] > 0 then
    unseat(id, line)
    line[LINE_TAG] = math.max(line[LINE_TAG], m[MODEL_VIRTUAL])
    redis.call("ZADD", front, 0, seat_of(id, line))
    save_line(id, line)
  end
end

local function add_needs(line, request, sign)
  local count = #request / 8 - CHARGES
  for i = 1, count do
    local amount = struct.unpack("<d", request, 8 * (CHARGES + i - 1) + 1)
    local at = LINE_LIMITS + i
    line[at] = math.max(0, (line[at] or 0) + sign * amount)
  end
  line[LINE_LIMITS] = math.max(line[LINE_LIMITS], count)
end

-- Let the next waiter of a line be its head, no earlier than `since`; a line without
-- waiters goes.
local function seat_next(id, line, since, m, wall)
  local member = head_of(id)
  if not member then
    redis.call("HDEL", book, "l" .. id)
    return
  end
  local t = open_ticket(string.sub(member, -DIGEST))
  line[LINE_TAG] = math.max(m[MODEL_VIRTUAL], since) + t[STEP]
  line[LINE_STEP] = t[STEP]
  line[LINE_STEPS] = math.max(0, line[LINE_STEPS] - t[STEP])
  line[LINE_RANK] = rank_of(string.sub(id, 1, 8), t, wall)
  redis.call("ZADD", front, 0, seat_of(id, line))
  save_line(id, line)
end

-- Put a waiter at the end of its line. True when it is the head.
local function join(id, digest, t, request, names, q, m, wall)
  q[WAITERS], q[SEQUENCE] = q[WAITERS] + 1, q[SEQUENCE] + 1
  t[PLACE] = q[SEQUENCE]
  save_ticket(digest, t, request, id, names)
  redis.call("ZADD", order, 0, place_of(id, t, digest))
  local line = open_line(id)
  local first = not line
  line = line or { 0, 1, 0, 0, 0, 0, 0 }
  line[LINE_COUNT] = line[LINE_COUNT] + 1
  line[LINE_STEPS] = line[LINE_STEPS] + t[STEP]
  add_needs(line, request, 1)
  if first then
    seat_next(id, line, 0, m, wall)
  else
    save_line(id, line)
  end
  return first
end

-- Take a waiter out of its line. `served` heads count for the order of those behind.
local function leave(id, digest, t, request, q, m, wall, served)
  local line, member = open_line(id), place_of(id, t, digest)
  local head = head_of(id) == member
  redis.call("ZREM", order, member)
  redis.call("HDEL", tickets, digest)
  q[WAITERS] = q[WAITERS] - 1
  line[LINE_COUNT] = line[LINE_COUNT] - 1
  add_needs(line, request, -1)
  if head then
    unseat(id, line)
    seat_next(id, line, line[LINE_TAG] - (served and 0 or line[LINE_STEP]), m, wall)
  else
    line[LINE_STEPS] = math.max(0, line[LINE_STEPS] - t[STEP])
    save_line(id, line)
  end
end

local MOST_LINES = 64

-- What is needed before the turn of a waiter, per limit of its chain: by `place` of
-- `count` of its own line, and by the others until virtual time comes to its tag. The
-- first `pool` limits are shared with the other models, the first `shared` with the other
-- tenants. Second, its tag, counted as the pool does. Third, what will be needed at most when
-- the others that wait now go on asking: their whole share until then.
local function ahead(id, line, place, step, limits, pool, shared, q, m)
  local needs, most, turn = {}, {}, m[MODEL_VIRTUAL] + step
  for i = 1, limits do
    needs[i], most[i] = 0, 0
  end
  if line then
    local part = place / math.max(line[LINE_COUNT], 1)
    for i = 1, limits do
      needs[i] = part * (line[LINE_LIMITS + i] or 0)
      most[i] = needs[i]
    end
    local behind = line[LINE_COUNT] > 1 and (place - 1) / (line[LINE_COUNT] - 1) or 0
    turn = line[LINE_TAG] + (place > 0 and math.min(1, behind) * line[LINE_STEPS] + step or 0)
  end
  turn = turn + m[BEHIND_POOL]
  local seats, models = redis.call("ZRANGE", front, 0, MOST_LINES - 1), {}
  local scale = math.max(1, redis.call("ZCARD", front) / MOST_LINES)
  for _, seat in ipairs(seats) do
    local other, rank, tag = read_seat(seat)
    if other ~= id then
      local model = string.sub(other, 1, 8)
      models[model] = models[model] or open_model(model, q)
      local it = open_line(other)
      local starts = models[model][BEHIND_POOL] + tag - it[LINE_STEP]
      local share = (turn - starts) / (it[LINE_STEP] + it[LINE_STEPS])
      local part = math.min(1, share)
      if rank == 0 then
        part = math.max(part, 1 / it[LINE_COUNT])
      end
      if part > 0 then
        local common = model == string.sub(id, 1, 8) and shared or pool
        for i = 1, math.min(common, it[LINE_LIMITS]) do
          needs[i] = needs[i] + scale * part * it[LINE_LIMITS + i]
          most[i] = most[i] + scale * math.max(part, share) * it[LINE_LIMITS + i]
        end
      end
    end
  end
  return needs, turn, most
end
