-- Token bucket: refills continuously, holds `capacity`, may be in debt after a settle.
--
-- record  kind 1, id, capacity, units per microsecond
-- cell    level
--
-- Almost every limit is one, and a call per limit would cost more than its
-- arithmetic: lib/limits writes look, charge and keep of a bucket out in its loops.
local BUCKET_RECORD, BUCKET_CELL = 4, 1

local function bucket_window()
  -- `old` is a state under another policy with the same limit: the level stays, and
  -- what has passed since the last write earns the new rate. `since` is how much older
  -- than the state the cell is.
  local function start(q, p, s, at, _, old, old_at, since)
    s[at] = old and old[old_at] + since * q[p + 3] or q[p + 2] * q[COLD_START]
  end

  return { record = BUCKET_RECORD, cell = BUCKET_CELL, start = start }
end
