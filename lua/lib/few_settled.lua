-- Write the leases that are settled: when, and what has moved.
local px = string.format("%d", math.ceil(span / 1000))
for n = 1, #settled do
  local text = texts[first + n]
  text = packed(SETTLE, text, wall, sub(text, 8 * SETTLED + 1), settled[n])
  call("SET", keys[first + n], text, "PX", px)
  settled[n] = text
end
