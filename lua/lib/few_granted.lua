-- Take from the scope what is asked of it, if there is room for all of it (lib/granted); else
-- leave it. Amounts of a later scope are read with numbers before them that mean nothing then.
local at, size = 8 * ahead + 1, 8 * (CHARGES + limits)
for n = 1, few and all or 0 do
  local nonce, _, ttl, past, _, _, _, marks, _, a1, a2, a3, a4 = unpacked(of_asked, asked, at)
  a3, a4 = a3 or 0, a4 or 0
  if
    a1 - l1 > 1e-6 -- as in lib/limits
    or a2 - l2 > 1e-6
    or a3 - l3 > 1e-6
    or a4 - l4 > 1e-6
  then
    few = false
    break
  end
  l1, l2, l3, l4, at = l1 - a1, l2 - a2, l3 - a3, l4 - a4, at + size
  if scope == 1 then
    local lasts = ttl + past
    if marks % 1024 >= 512 and gated > 0 or n > 1 and lasts ~= span then -- a retry
      few = false
      break
    end
    span = lasts
    if nonce % SAMPLE == 0 then
      samples = samples + 1
    end
  end
end
