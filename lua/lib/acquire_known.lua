-- Read what an acquire needs, and answer what is known before anything is decided. The circuit is
-- long, and read where more than its head is needed.
local request = ARGV[#ARGV]
local stored = redis.call("MGET", KEYS[#KEYS - 3], KEYS[#KEYS - 1], KEYS[#KEYS],
  unpack(KEYS, 1, #ARGV - 2))
local known, tag = stored[2], string.sub(request, 1, 8)
if known then
  local same = string.sub(known, 9, 16) == string.sub(request, 9, 16)
  return tag .. (same and "R" .. known or "C")
elseif stored[3] then
  return tag .. "Q"
end
