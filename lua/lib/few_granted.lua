-- Grant all that is asked, if there is room for all of it (lib/granted); else leave it.
local samples, reply, span = 0, nil, nil
if few then
  local at, size = 1, 8 * (CHARGES + limits)
  for n = 1, all do
    local nonce, _, ttl, past, _, _, _, marks, _, a1, a2, a3, a4 = unpacked(of_asked, asked, at)
    local lasts = ttl + past
    a3, a4 = a3 or 0, a4 or 0
    if
      a1 - l1 > 1e-6 -- as in lib/limits
      or a2 - l2 > 1e-6
      or a3 - l3 > 1e-6
      or a4 - l4 > 1e-6
      or marks % 1024 >= 512 and gated > 0 -- a retry
      or n > 1 and lasts ~= span
    then
      few = false
      break
    end
    l1, l2, l3, l4 = l1 - a1, l2 - a2, l3 - a3, l4 - a4
    at, span = at + size, lasts
    if nonce % SAMPLE == 0 then
      samples = samples + 1
    end
  end
end
