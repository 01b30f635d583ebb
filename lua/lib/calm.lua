-- The breaker when all is well, which is nearly always: a circuit that is closed and has
-- nothing to remember, a pin that holds nobody. What this does is what the whole of the
-- breaker would do (lib/admission), without decoding, and without building, what is not
-- needed; it returns nil where it cannot.

-- Let a first attempt pass: the generation that passes it, and the pin to write when it is
-- granted, if any.
local function pass_calmly(policy, circuit, pin, wall, nonce)
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
    return generation, ratio > 0 and struct.pack("<dddd", 0, 0, wall, most + ratio) .. rest, life
  end
  local calm, shift, seen, balance = struct.unpack("<dddd", pin)
  local now = wall + shift
  if now < calm or now < seen then
    return nil
  elseif ratio < 0 then
    return generation
  end
  balance = most + (balance - most) * math.exp((seen - now) / memory)
  local earns = share_earned(ratio, balance - most, nonce)
  if earns == 0 then
    return generation
  end
  balance = balance + earns
  return generation, struct.pack("<dddd", calm, shift, now, balance) .. string.sub(pin, 33), life
end
