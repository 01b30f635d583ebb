-- The bare mechanism, for comparison: three limits as three theoretical arrival times in
-- one packed string, and the least that makes a request charge once: a key per request
-- with the answer. No settle, no reload, no clock that steps back.
local known = redis.call("GET", KEYS[2])
if known then
  return known
end
local stored, time = redis.call("GET", KEYS[1]), redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local unit1, burst1, cost1, unit2, burst2, cost2, unit3, burst3, cost3 =
  struct.unpack("<ddddddddd", ARGV[1])
local t1, t2, t3, kept = now, now, now, 0
if stored then
  t1, t2, t3, kept = struct.unpack("<dddd", stored)
end
t1, t2, t3 = math.max(t1, now), math.max(t2, now), math.max(t3, now)
local n1, n2, n3 = t1 + cost1 * unit1, t2 + cost2 * unit2, t3 + cost3 * unit3
local wait = math.max(n1 - now - burst1, n2 - now - burst2, n3 - now - burst3)
if wait > 0 then
  return struct.pack("<dddd", wait, t1, t2, t3)
end
local last = math.max(n1, n2, n3)
if kept > last then
  redis.call("SET", KEYS[1], struct.pack("<dddd", n1, n2, n3, kept), "KEEPTTL")
else
  kept = 2 * last - now
  local text = struct.pack("<dddd", n1, n2, n3, kept)
  redis.call("SET", KEYS[1], text, "PX", math.ceil((kept - now) / 1000))
end
local answer = struct.pack("<dddd", 0, n1, n2, n3)
redis.call("SET", KEYS[2], ARGV[2] .. answer, "PX", 660000)
return answer
