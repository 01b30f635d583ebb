-- Successes as the breaker takes them in when all is well (lib/calm): what lib/report would do,
-- without decoding the circuit.
local C_WINDOW, BUCKETS, FIELDS, SUCCESS = 32, 12, 6, 1

-- A circuit that is to count successes of this moment; nil where that takes more.
local function watch_calmly(policy, circuit, pin, wall)
  if not circuit then
    return nil
  end
  local calm, number, shift, seen, span, spotless, newest = struct.unpack("<ddddddd", circuit)
  local now = wall + shift
  if now < calm or now < seen or spotless == 0 then
    return nil
  end
  local life, _, _, _, width = struct.unpack("<ddddd", policy)
  if math.floor(now / span) ~= newest or span ~= width then
    return nil
  end
  if pin then
    local holds, pin_shift, pin_seen = struct.unpack("<ddd", pin)
    if wall + pin_shift < holds or wall + pin_shift < pin_seen then
      return nil
    end
  end
  -- Of the newest bucket the count of successes and the set of workers change.
  local at = 8 * (C_WINDOW - 1 + newest % BUCKETS * FIELDS)
  return {
    text = circuit, now = now, generation = number, life = life, at = at,
    ok = struct.unpack("<d", circuit, at + 1), workers = struct.unpack("<d", circuit, at + 41),
  }
end

local function count_success(c, worker)
  local bit_of_worker = 2 ^ worker
  if math.floor(c.workers / bit_of_worker) % 2 == 0 then
    c.workers = c.workers + bit_of_worker
  end
  c.ok = c.ok + 1
end

-- The circuit to write.
local function text_with_successes(c)
  local circuit, at = c.text, c.at
  return string.sub(circuit, 1, 24)
    .. struct.pack("<d", c.now)
    .. string.sub(circuit, 33, at)
    .. struct.pack("<d", c.ok)
    .. string.sub(circuit, at + 9, at + 40)
    .. struct.pack("<d", c.workers)
    .. string.sub(circuit, at + 49)
end

-- Count one success: the circuit to write, and its life; nil where that takes more.
local function succeed_calmly(policy, circuit, pin, wall, generation, worker)
  local c = watch_calmly(policy, circuit, pin, wall)
  if not c or c.generation ~= generation then
    return nil
  end
  count_success(c, worker)
  return text_with_successes(c), c.life
end
