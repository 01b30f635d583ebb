-- The windows by the kind of a limit (lib/layout).
--
-- They are built when first needed: who meets only buckets pays for no other.
local windows = {}
local function window_of(kind)
  local window = windows[kind]
  if not window then
    local makers = {
      bucket_window, sliding_window, calendar_window, concurrency_window, ramp_window,
    }
    window = makers[(kind - 1) % SHADOW + 1]()
    windows[kind] = window
  end
  return window
end

-- The window of a limit by its id, where no policy says its kind.
local function window_by(id)
  local kind = id < RAMPS and id % 4 + 1 or RAMP
  return windows[kind] or window_of(kind)
end
