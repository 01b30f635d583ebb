-- The pool's event stream: what a script call has changed is told by that very call, so
-- the fleet hears of each transition once.
local MOST_EVENTS, EVENTS_LIFE = 1000, 604800000

local function publish(events, key, model, wall)
  for i = 1, #events do
    local time = string.format("%.0f", wall)
    redis.call("XADD", key, "MAXLEN", "~", MOST_EVENTS, "*", "time", time, "model", model,
      unpack(events[i]))
  end
  if #events > 0 then
    redis.call("PEXPIRE", key, EVENTS_LIFE)
  end
end
