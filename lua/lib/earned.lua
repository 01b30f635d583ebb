-- Write what those have earned who are granted: all who have asked, or those in `lives`; so many
-- of them are samples (lib/earning).
local earns, rest = {}, balance
for n = 1, balance - most >= PLENTY and samples or 0 do
  earns[n] = SAMPLE * ratio
end
for n = 1, balance - most < PLENTY and all or 0 do
  if not lives or lives[n] then
    local nonce = unpacked("<d", asked, 8 * (CHARGES + limits) * (n - 1) + 1)
    local more = share_earned(ratio, rest - most, nonce)
    if more > 0 then
      earns[#earns + 1], rest = more, rest + more
    end
  end
end
for n = 1, #earns do -- as if one came after the other
  balance = (n > 1 and most + (balance - most) or balance) + earns[n]
end
if #earns > 0 then
  local head = pin and sub(pin, 1, 16) or packed("<dd", 0, 0)
  local tail = pin and sub(pin, 33) or string.rep("\0", 56)
  local px = string.format("%d", math.ceil(life / 1000))
  pin = head .. packed("<dd", pin_time, balance) .. tail
  call("SET", pin_key, pin, "PX", px)
end
