-- The clock of a simulation, in the place of lib/clock: what the loop says the time is.
local function now_us()
  return tonumber(redis.call("GET", "simulated-clock"))
end
