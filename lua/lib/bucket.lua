-- Token bucket: refills continuously, holds `capacity`, may be in debt after a settle.
--
-- record  kind 1, id, size, capacity, units per microsecond
-- cell    level
--
-- Almost every limit is one, and a call per limit would cost more than its
-- arithmetic: lib/limits writes look, charge and keep of a bucket out in its loops.
local BUCKET_RECORD = 5

local function bucket_window()
  -- `old` is a state with the same limit under another configuration: the level stays,
  -- and what has passed since the last write earns the new rate.
  local function start(s, p, at, _, old, old_at)
    s[at] = old and old[old_at] or s[p + 3] * s[COLD_START]
  end

  return { record = BUCKET_RECORD, start = start }
end
