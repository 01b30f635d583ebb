-- Successes as the breaker takes them in when all is well (lib/calm): what lib/report would do,
-- without decoding the circuit. In a bucket of the window that has been begun the count changes
-- and the set of workers, and of the circuit when it was written; for how long it is kept was
-- said when the bucket was begun.
local C_WINDOW, BUCKETS, FIELDS, SUCCESS = 32, 12, 6, 1
local HEAD, BUCKET_SIZE = 56, 48

-- Open the bucket in which successes of this moment are counted, of a circuit of which the first
-- numbers are given; nil where to count one takes more, false where the next does not. A window
-- that knows of successes only has nothing in a bucket but their number and who had them.
local function watch_calmly(key, head, width, pin, wall)
  if #head < HEAD then
    return false
  end
  local calm, generation, shift, seen, span, spotless, newest = struct.unpack("<ddddddd", head)
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
  local at = 8 * (C_WINDOW - 1 + newest % BUCKETS * FIELDS)
  local bucket = redis.call("GETRANGE", key, at, at + BUCKET_SIZE - 1)
  local ok, _, _, _, _, workers = struct.unpack("<dddddd", bucket)
  return { generation = generation, span = span, now = now, at = at, ok = ok, workers = workers }
end

local function with_worker(set, nth)
  local bit_of_worker = 2 ^ nth
  return math.floor(set / bit_of_worker) % 2 == 0 and set + bit_of_worker or set
end

-- Count so many successes; `workers` is the set of those who ever had one.
local function count_successes(c, number, workers)
  c.ok, c.workers = c.ok + number, workers
end

local function save_successes(key, c)
  redis.call("SETRANGE", key, "24", struct.pack("<d", c.now))
  redis.call("SETRANGE", key, c.at, struct.pack("<dddddd", c.ok, 0, 0, 0, 0, c.workers))
end
