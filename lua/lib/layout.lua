-- Everything that scripts store, take and answer is an array of little-endian doubles:
-- one call decodes it, whole numbers are exact to 2^53, and a microsecond fits.
--
-- A scope (a pool, a model, a tenant, or a tenant on a model) is stored as the
-- policy under which it was last written, followed by its cells:
--
--   policy  least time to keep the scope, fill of a limit without state, number of
--           limits, then one record per limit: kind, id, size of its cell, capacity,
--           and what its window needs
--   cells   time of the last write, skew, wall time until which it is kept, then one
--           cell per limit
--
-- A window explains its record and its cell at its head (lib/bucket and its kin).
-- A shadow of a window has a kind SHADOW higher. All times are microseconds.
local COLD_START, COUNT, RECORDS, CELLS = 2, 3, 4, 3
local BUCKET, SHADOW = 1, 4

-- What a window answers beside a time to wait.
local NEVER, STALE = -1, -2

local function numbers(text)
  return { struct.unpack(string.rep("<d", #text / 8), text) }
end

local function text_of(list, from, to)
  return struct.pack(string.rep("<d", to - from + 1), unpack(list, from, to))
end
