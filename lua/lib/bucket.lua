-- Token bucket: refills continuously, holds `capacity`, may be in debt after a settle.
--
-- record  kind 1, id, size, capacity, units per microsecond
-- cell    level
--
-- Almost every limit is one, and a call per limit would cost more than its
-- arithmetic: lib/limits writes look, charge and keep of a bucket out in its loops.
local BUCKET_RECORD = 5

local function bucket_window()
  -- `old` is a state with the same limit under another configuration. Until the reload
  -- the old rate held: the past earns the lower of both, so nobody is credited for it.
  local function start(s, p, at, _, old, old_p, old_at, elapsed)
    if old then
      s[at] = old[old_at] + elapsed * math.min(0, old[old_p + 4] - s[p + 4])
    else
      s[at] = s[p + 3] * s[COLD_START]
    end
  end

  return { record = BUCKET_RECORD, start = start }
end
