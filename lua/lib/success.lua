-- Successes as the breaker takes them in when all is well (lib/calm): what lib/report would do,
-- without decoding the circuit. In a bucket of the window that has been begun the count changes
-- and the set of workers, and of the circuit when it was written; for how long it is kept was
-- said when the bucket was begun. All of that stands in the first bytes of a circuit.
local WATCHED, SUCCESS = 104, 1

-- Open the newest bucket of a circuit of which the beginning is given, to count successes of this
-- moment; nil where to count one takes more, false where the next does not. A window that knows of
-- successes only has nothing in a bucket but their number and who had them.
local function watch_calmly(circuit, width, pin, wall)
  if #circuit < WATCHED then
    return false
  end
  local calm, generation, shift, seen, span, spotless, newest, ok, _, _, _, _, workers =
    struct.unpack("<ddddddddddddd", circuit)
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
  return {
    generation = generation, now = now, span = span, newest = newest, ok = ok, workers = workers,
  }
end

local function with_worker(set, nth)
  local bit_of_worker = 2 ^ nth
  return math.floor(set / bit_of_worker) % 2 == 0 and set + bit_of_worker or set
end

-- Count so many successes; `workers` is the set of those who ever had one.
local function count_successes(c, number, workers)
  c.ok, c.workers = c.ok + number, workers
end

-- Write what has changed, and what stands between.
local function save_successes(key, c)
  local bucket = struct.pack("<dddddddddd", c.now, c.span, 1, c.newest, c.ok, 0, 0, 0, 0, c.workers)
  redis.call("SETRANGE", key, "24", bucket)
end
