-- The breaker when all is well, which is nearly always: a circuit that is closed and has
-- nothing to remember, a pin that holds nobody. What this does is what the whole of the
-- breaker would do (lib/admission), without decoding, and without building, what is not
-- needed; it returns nil where it cannot.

-- Let a first attempt pass: the generation that passes it, and the pin to write when it is
-- granted, which earns the fleet a share of a retry.
local function pass_calmly(policy, circuit, pin, wall)
  local life, ratio, floor, memory = struct.unpack("<dddd", policy)
  local generation = 1
  if circuit then
    local calm, number, shift, seen = struct.unpack("<dddd", circuit)
    if wall + shift < calm or wall + shift < seen then
      return nil
    end
    generation = number
  end
  local most = floor * memory
  if not pin then
    local rest = string.rep("\0", 56)
    return generation, ratio >= 0 and struct.pack("<dddd", 0, 0, wall, most + ratio) .. rest, life
  end
  local calm, shift, seen, balance = struct.unpack("<dddd", pin)
  local now = wall + shift
  if now < calm or now < seen then
    return nil
  elseif ratio < 0 then
    return generation
  end
  balance = most + (balance - most) * math.exp((seen - now) / memory) + ratio
  return generation, struct.pack("<dddd", calm, shift, now, balance) .. string.sub(pin, 33), life
end

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
