-- Open the state of a scope (lib/layout).

-- Windows are built when first needed: who meets only buckets pays for no other.
local windows = {}
local function window_of(kind)
  local window = windows[kind]
  if not window then
    local makers = {
      bucket_window,
      sliding_window,
      calendar_window,
      concurrency_window,
    }
    window = makers[(kind - 1) % SHADOW + 1]()
    windows[kind] = window
  end
  return window
end

-- Where the cells of a scope's limits stand, by id, where its cells begin, and where it
-- ends. `base` is what stands before it in `s`.
local function places(s, base)
  local cells, p = {}, base + RECORDS
  for _ = 1, s[base + COUNT] do
    p = p + window_of(s[p]).record
  end
  local m, at = p, p + CELLS
  p = base + RECORDS
  for _ = 1, s[base + COUNT] do
    cells[s[p + 1]] = at
    p, at = p + window_of(s[p]).record, at + s[p + 2]
  end
  return cells, m, at - 1
end

-- The state of a scope in the layout of `policy`: fresh, or with the cells of `old`
-- whose limits are still there.
local function reshape(policy, old, wall)
  local s, m = numbers(policy), #policy / 8 + 1
  s[m], s[m + 1], s[m + 2] = wall, 0, 0
  local cells = {}
  if old then
    local old_m
    cells, old_m = places(old, 0)
    s[m], s[m + 1] = old[old_m], old[old_m + 1]
  end
  local p, at = RECORDS, m + CELLS
  for _ = 1, s[COUNT] do
    local window, cell = window_of(s[p]), cells[s[p + 1]]
    window.start(s, p, at, math.max(wall + s[m + 1], s[m]), cell and old, cell)
    p, at = p + window.record, at + s[p + 2]
  end
  return s
end

-- Decode a scope and bring its clock to now. Returns its numbers, where its cells
-- begin, its time, and what has elapsed since the last write. A policy that equals
-- the stored one byte by byte has its layout; after a reload cells move by id.
--
-- Time inside a scope never runs backwards: a server clock that steps back moves
-- the skew, so it credits nobody and locks nobody out.
local function open_scope(text, policy, wall)
  local s
  if text and string.sub(text, 1, #policy) == policy then
    s = numbers(text)
  else
    s = reshape(policy, text and numbers(text), wall)
  end
  local m = #policy / 8 + 1
  local now = wall + s[m + 1]
  local elapsed = now - s[m]
  if elapsed < 0 then
    s[m + 1], now, elapsed = s[m + 1] - elapsed, s[m], 0
  end
  s[m] = now
  return s, m, now, elapsed
end
