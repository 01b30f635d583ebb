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

-- The pin of `pass_calmly` when it has let more pass at the same moment: each earns its share.
local function earn_more(policy, pin, more)
  local _, ratio, floor, memory = struct.unpack("<dddd", policy)
  local most, balance = floor * memory, struct.unpack("<d", pin, 25)
  for _ = 1, more do
    balance = most + (balance - most) + ratio
  end
  return string.sub(pin, 1, 24) .. struct.pack("<d", balance) .. string.sub(pin, 33)
end
