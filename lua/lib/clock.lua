-- The server's time in whole microseconds: the only reader of a clock. Whoever keeps a
-- stamp clamps what has elapsed since (lib/scope); nothing here remembers.
local function now_us()
  local time = redis.call("TIME")
  return time[1] * 1000000 + time[2]
end
