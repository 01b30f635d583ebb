-- Successes as the breaker takes them in when all is well (lib/calm): what lib/report would do,
-- without decoding the circuit. In a bucket of the window that has been begun the count changes
-- and the set of workers, and of the circuit when it was written; for how long it is kept was
-- said when the bucket was begun.
local C_WINDOW, BUCKETS, FIELDS, SUCCESS = 32, 12, 6, 1
local HEAD, BUCKET_SIZE = 56, 48

-- Where the bucket of this moment stands in a circuit of which the first numbers are given, and
-- its generation and time; nil where to count a success takes more, false where the next does not.
local function calm_bucket(head, width, pin, wall)
  local calm, number, shift, seen, span, spotless, newest = struct.unpack("<ddddddd", head)
  local now = wall + shift
  if now < calm or now < seen or spotless == 0 then
    return nil
  end
  if pin then
    local holds, pin_shift, pin_seen = struct.unpack("<ddd", pin)
    if wall + pin_shift < holds or wall + pin_shift < pin_seen then
      return nil
    end
  end
  if math.floor(now / span) ~= newest or span ~= width then
    return false
  end
  return 8 * (C_WINDOW - 1 + newest % BUCKETS * FIELDS), number, now
end

-- Open the bucket in which successes of this moment are counted; nil or false as there.
local function watch_calmly(key, head, width, pin, wall)
  if #head < HEAD then
    return false
  end
  local at, generation, now = calm_bucket(head, width, pin, wall)
  if not at then
    return at
  end
  local bucket = redis.call("GETRANGE", key, at, at + BUCKET_SIZE - 1)
  local ok, failed, slow, throttled, failing, workers = struct.unpack("<dddddd", bucket)
  return {
    generation = generation, now = now, at = at, ok = ok, workers = workers,
    rest = { failed, slow, throttled, failing },
  }
end

local function count_success(c, worker)
  local bit_of_worker = 2 ^ worker
  if math.floor(c.workers / bit_of_worker) % 2 == 0 then
    c.workers = c.workers + bit_of_worker
  end
  c.ok = c.ok + 1
end

local function save_successes(key, c)
  local rest = c.rest
  redis.call("SETRANGE", key, "24", struct.pack("<d", c.now))
  redis.call("SETRANGE", key, c.at,
    struct.pack("<dddddd", c.ok, rest[1], rest[2], rest[3], rest[4], c.workers))
end
