-- The breaker as ordinary first attempts meet it: what lib/calm does. What it cannot tell is left.
local generation, now, balance = 1, nil, most
if gated > 0 then
  local head = call("GETRANGE", circuit, "0", "31")
  if head ~= "" then
    local calm, number, shift, seen = unpacked("<dddd", head)
    generation = number
    if wall + shift < calm or wall + shift < seen then
      return sub(asked, 1, 8)
    end
  end
  now = wall
  if pin then
    local calm, shift, seen, left = unpacked("<dddd", pin)
    now = wall + shift
    if now < calm or now < seen then
      return sub(asked, 1, 8)
    end
    balance = most + (left - most) * math.exp((seen - now) / memory)
  end
end
