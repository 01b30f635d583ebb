-- The records of the queue (docs/data-model.md), and how to open and write them.
--
-- A line is the waiters of one tenant and priority on one model, first come, first
-- served. Its id is the digests of model and tenant, 8 bytes each, and a byte of priority.
-- A member of `order` is a line's id, a sequence number (8 bytes, big-endian) and the
-- digest of a request (16 bytes): lexical order is the order of service within a line.
-- A member of `front` says where the head of a line stands: model, a byte of rank, tag
-- (8 bytes, big-endian), tenant, priority; lexical order is fair order within a model. A
-- member of `grants` is the digest of a request and the replica that holds its caller.
--
--   queue   waiters, last sequence number, virtual time of the pool; then per limit of the
--           pool that is closed its id and the tag of the waiter that closed it
--   model   virtual time of the model, what it is behind the pool's; then as above, for
--           the limits of the model
--   line    tag of the head, its rank, its step, the steps behind it, number of waiters,
--           until when it sleeps, number of limits; then per limit what all of it needs
--   ticket  state (0 waits, 1 granted, 2 its time is over); when it began to wait, until
--           when it may, when its caller was last seen, replica that holds it, sequence
--           number, step, cost, class, share, period, patient, shape of its chain, number
--           of limits; then the request as it stands in a lease, the id of its line, the
--           names of resource and tenant. Of a granted one: state, replica, length of the
--           names; then the names and the lease
--
-- `queue` exists exactly while somebody waits or has not fetched an answer.
local queue, order, front, asleep, grants, book, tickets = unpack(KEYS, #KEYS - 6)

local WAITERS, SEQUENCE, VIRTUAL, POOL_CLOSED = 1, 2, 3, 4
local MODEL_VIRTUAL, BEHIND_POOL, MODEL_CLOSED = 1, 2, 3
local LINE_TAG, LINE_RANK, LINE_STEP, LINE_STEPS = 1, 2, 3, 4
local LINE_COUNT, LINE_DUE, LINE_LIMITS = 5, 6, 7
local STATE, BEGAN, DEADLINE, SEEN, HOLDER, PLACE, STEP = 1, 2, 3, 4, 5, 6, 7
local COST, CLASS, SHARE, PERIOD, PATIENT, SHAPE, NEEDS = 8, 9, 10, 11, 12, 13, 14
local ID, DIGEST = 17, 16
local top = string.rep("\255", 9)

-- The first `count` numbers of a text.
local function some(text, count)
  local list = { struct.unpack(string.rep("<d", count), text) }
  list[count + 1] = nil
  return list
end

local function all(text)
  return some(text, #text / 8)
end

local function open_queue()
  local text = redis.call("GET", queue)
  return text and all(text) or { 0, 0, 0 }
end

-- Write the queue, and keep everything of it for `keep` milliseconds; when nobody waits
-- and every grant is fetched, nothing stays.
local function close_queue(q, keep)
  if q[WAITERS] <= 0 and redis.call("ZCARD", grants) == 0 then
    redis.call("UNLINK", queue, order, front, asleep, grants, book, tickets)
    return
  end
  redis.call("SET", queue, text_of(q, 1, #q), "PX", keep)
  for n = #KEYS - 5, #KEYS do
    redis.call("PEXPIRE", KEYS[n], keep)
  end
end

-- A model that has fallen far behind the pool is brought to within one whole limit of it:
-- when a limit of the pool becomes scarce, nobody is to pay for what was plenty before.
local function open_model(model, q)
  local text = redis.call("HGET", book, "m" .. model)
  local m = text and all(text) or { 0, q[VIRTUAL] }
  m[BEHIND_POOL] = math.max(m[BEHIND_POOL], q[VIRTUAL] - m[MODEL_VIRTUAL] - 1)
  return m
end

local function save_model(model, m)
  redis.call("HSET", book, "m" .. model, text_of(m, 1, #m))
end

local function open_line(id)
  local text = redis.call("HGET", book, "l" .. id)
  return text and all(text)
end

local function save_line(id, line)
  redis.call("HSET", book, "l" .. id, text_of(line, 1, #line))
end

-- The ticket of a request: its numbers, the request as it stands in a lease, the id of its
-- line, the names. Of a granted one: its numbers, the lease, nil, the names.
local function open_ticket(digest)
  local text = redis.call("HGET", tickets, digest)
  if not text then
    return nil
  elseif struct.unpack("<d", text) == 1 then
    local t = some(text, 3)
    return t, string.sub(text, 25 + t[3]), nil, string.sub(text, 25, 24 + t[3])
  end
  local t = some(text, NEEDS)
  local at = 8 * (NEEDS + CHARGES + t[NEEDS])
  local request = string.sub(text, 8 * NEEDS + 1, at)
  return t, request, string.sub(text, at + 1, at + ID), string.sub(text, at + ID + 1)
end

local function save_ticket(digest, t, request, id, names)
  redis.call("HSET", tickets, digest, text_of(t, 1, NEEDS) .. request .. id .. names)
end

local function place_of(id, t, digest)
  return id .. struct.pack(">d", t[PLACE]) .. digest
end

local function head_of(id)
  return redis.call("ZRANGEBYLEX", order, "[" .. id, "(" .. id .. top, "LIMIT", 0, 1)[1]
end

local function seat_of(id, line)
  local model, rest = string.sub(id, 1, 8), string.sub(id, 9)
  return model .. string.char(line[LINE_RANK]) .. struct.pack(">d", line[LINE_TAG]) .. rest
end

-- Line id, rank and tag of a member of `front`.
local function read_seat(seat)
  local id = string.sub(seat, 1, 8) .. string.sub(seat, 18)
  return id, string.byte(seat, 9), (struct.unpack(">d", string.sub(seat, 10, 17)))
end

-- The first seat of a model at the front after a member; nil when there is none.
local function next_seat(model, after)
  local from = after and "(" .. after or "[" .. model
  return redis.call("ZRANGEBYLEX", front, from, "(" .. model .. top, "LIMIT", 0, 1)[1]
end

-- Whether the caller behind a ticket is in sight: it, or the replica that holds it, was heard
-- of within `grace`.
local function sight(wall, grace)
  local beats = {}
  return function(t)
    if wall - t[SEEN] <= grace then
      return true
    elseif t[HOLDER] == 0 then
      return false
    end
    local holder = t[HOLDER]
    if beats[holder] == nil then
      local text = redis.call("HGET", book, "r" .. struct.pack("<d", holder))
      beats[holder] = text and wall - struct.unpack("<d", text) <= grace or false
    end
    return beats[holder]
  end
end
