-- Open the state of a scope (lib/layout).

-- Windows are built when first needed: who meets only buckets pays for no other.
local windows = {}
local function window_of(kind)
  local window = windows[kind]
  if not window then
    local makers = { bucket_window, sliding_window, calendar_window, concurrency_window }
    window = makers[(kind - 1) % SHADOW + 1]()
    windows[kind] = window
  end
  return window
end

-- Note in `cells` where each cell of a state stands, by limit id; `base` is what stands
-- before it in `s`. Returns where the state ends.
local function note_cells(s, base, cells)
  local at = base + CELLS
  for _ = 1, s[base + COUNT] do
    local id = s[at]
    cells[id] = at + 1
    at = at + 1 + window_of(id % SHADOW + 1).cell
  end
  return at - 1
end

-- The state of a scope in the layout of the policy `q`: fresh, or with the cells of
-- `old` whose limits are still there.
local function reshape(q, old, wall)
  local s, cells = { q[VERSION], q[COUNT], wall, 0, 0 }, {}
  if old then
    note_cells(old, 0, cells)
    s[TIME], s[SKEW] = old[TIME], old[SKEW]
  end
  local p, at, now = RECORDS, CELLS, math.max(wall + s[SKEW], s[TIME])
  for _ = 1, q[COUNT] do
    local window, id = window_of(q[p]), q[p + 1]
    s[at] = id
    window.start(q, p, s, at + 1, now, cells[id] and old, cells[id])
    p, at = p + window.record, at + 1 + window.cell
  end
  return s
end

-- Decode a state and bring its clock to now. Returns it, its time, and what has elapsed
-- since the last write. After a reload cells move by the ids of their limits.
--
-- Time inside a scope never runs backwards: a server clock that steps back moves the
-- skew, so it credits nobody and locks nobody out.
local function open_scope(text, q, wall)
  local s = text and numbers(text)
  if not s or s[VERSION] ~= q[VERSION] then
    s = reshape(q, s, wall)
  end
  local now = wall + s[SKEW]
  local elapsed = now - s[TIME]
  if elapsed < 0 then
    s[SKEW], now, elapsed = s[SKEW] - elapsed, s[TIME], 0
  end
  s[TIME] = now
  return s, now, elapsed
end
