-- The breaker as ordinary first attempts meet it: what lib/calm does. What it cannot tell is left.
local generation = 1
if gated > 0 then
  generation = passed and passed[circuit]
  if not generation then
    local head = call("GETRANGE", circuit, "0", "31")
    generation = 1
    if head ~= "" then
      local calm, number, shift, seen = unpacked("<dddd", head)
      generation = number
      if wall + shift < calm or wall + shift < seen then
        return sub(asked, 1, 8)
      end
    end
    if passed then
      passed[circuit] = generation
    end
  end
  if not pin then
    pin_time, balance = wall, most
  elseif pin ~= known_pin then
    local calm, shift, seen, left = unpacked("<dddd", pin)
    pin_time = wall + shift
    if pin_time < calm or pin_time < seen then
      return sub(asked, 1, 8)
    end
    known_pin, balance = pin, most + (left - most) * math.exp((seen - pin_time) / memory)
  end
end
