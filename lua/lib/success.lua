-- A success as the breaker takes it in when all is well (lib/calm): what lib/report would do,
-- without decoding the circuit. It returns nil where it cannot.

-- Count a success where none has gone wrong before: the circuit to write, and its life.
local function succeed_calmly(policy, circuit, pin, wall, generation, worker)
  if not circuit then
    return nil
  end
  local calm, number, shift, seen, span, spotless, newest = struct.unpack("<ddddddd", circuit)
  local now = wall + shift
  if now < calm or now < seen or number ~= generation or spotless == 0 then
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
  local ok, workers = struct.unpack("<d", circuit, at + 1), struct.unpack("<d", circuit, at + 41)
  local bit_of_worker = 2 ^ worker
  if math.floor(workers / bit_of_worker) % 2 == 0 then
    workers = workers + bit_of_worker
  end
  local text = string.sub(circuit, 1, 24)
    .. struct.pack("<d", now)
    .. string.sub(circuit, 33, at)
    .. struct.pack("<d", ok + 1)
    .. string.sub(circuit, at + 9, at + 40)
    .. struct.pack("<d", workers)
    .. string.sub(circuit, at + 49)
  return text, life
end
