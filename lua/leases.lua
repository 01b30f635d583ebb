-- How long leases live that nobody has settled; changes nothing.
--
-- KEYS    the lease of each call, a string
-- ARGV    one text: tag, then the nonce of each
-- returns the tag, G, then for each the microseconds that it has left, 0 or less when it is over;
--         -1e18 when it was settled, or is not known any more

-- @include lib/clock
-- @include lib/layout
-- @include lib/numbers
-- @include lib/lease

local nonces, now, left = numbers(ARGV[1]), now_us(), {}
for i, text in ipairs(redis.call("MGET", unpack(KEYS))) do
  local lease = text and numbers(text)
  left[i] = -1e18
  if lease and lease[1] == nonces[i + 1] and lease[SETTLED] == 0 then
    local base = CHARGES + lease[LIMITS]
    left[i] = lease[base + TIME] - lease[base + SKEW] + lease[TTL] - now
  end
end
return string.sub(ARGV[1], 1, 8) .. "G" .. text_of(left, 1, #left)
