-- Open the state of a scope (lib/layout).

-- A bound for what nobody asks for: numbers, and microseconds.
local MOST_ASIDE, LONGEST_ASIDE = 400, 86400000000

-- Note in `cells` where each cell of a state stands, by limit id; `base` is what stands
-- before it in `s`. Returns where the state ends.
local function note_cells(s, base, cells)
  local at = base + CELLS
  for _ = 1, s[base + COUNT] do
    local id = s[at]
    cells[id] = at + 1
    at = at + 1 + window_by(id).cell
  end
  if s[base + VERSION] < 0 then
    at = at + TERMS + 2 * s[base + COUNT]
  end
  return at - 1
end

-- The cells of `old` that the policy of `s` has no limits for: replicas read a changed
-- file at different times, and what one does not know the other still counts. `kept` are
-- the ids that the policy has; `times` are set for cells that were aside before.
local function set_aside(old, cells, times, kept)
  local rest = {}
  for id, at in pairs(cells) do
    local written = times[id] or old[TIME]
    if not kept[id] and #rest < MOST_ASIDE and old[TIME] - written < LONGEST_ASIDE then
      rest[#rest + 1], rest[#rest + 2] = id, written
      for i = at, at + window_by(id).cell - 1 do
        rest[#rest + 1] = old[i]
      end
    end
  end
  return #rest > 0 and text_of(rest, 1, #rest) or nil
end

-- The state of a scope in the layout of the policy `q`: fresh, or with the cells of
-- `old` whose limits are still there. Second, the text of what is set aside, or nil.
local function reshape(q, old, wall)
  local s, cells, times, kept = { q[VERSION], q[COUNT], wall, 0, 0 }, {}, {}, {}
  local records, terms
  if old then
    local at = note_cells(old, 0, cells) + 1
    if at < #old then
      records = learned().note_rest(old, at, cells, times)
    end
    s[TIME], s[SKEW] = old[TIME], old[SKEW]
  end
  local p, at, now = RECORDS, CELLS, math.max(wall + s[SKEW], s[TIME])
  if records then
    terms = learned().terms(q, records, now)
    in_terms().apply(q, terms)
  end
  for _ = 1, q[COUNT] do
    local window, id = window_of(q[p]), q[p + 1]
    s[at], kept[id] = id, true
    local since = s[TIME] - (times[id] or s[TIME])
    window.start(q, p, s, at + 1, now, cells[id] and old, cells[id], since)
    p, at = p + window.record, at + 1 + window.cell
  end
  if terms then
    learned().append(s, at - 1, terms)
    s[VERSION] = -q[VERSION]
  end
  local aside = old and set_aside(old, cells, times, kept)
  if records then
    aside = (aside or "") .. learned().text(records, now)
  end
  return s, aside ~= "" and aside or nil
end

-- Decode a state and bring its clock to now. Returns it, its time, what has elapsed since
-- the last write, and, after a reload, true and what is set aside: then cells have moved
-- by the ids of their limits; last, whether the server's clock has stepped back.
--
-- Time inside a scope never runs backwards: a server clock that steps back moves the
-- skew, so it credits nobody and locks nobody out, once it is written (lib/limits).
local function open_scope(text, q, wall)
  local s, moved, aside = text and numbers(text), false, nil
  if not s or s[VERSION] ~= q[VERSION] then
    if not s or s[VERSION] ~= -q[VERSION] or not in_terms().keep(q, s, wall) then
      moved, s, aside = true, reshape(q, s, wall)
    end
  end
  local now = wall + s[SKEW]
  local elapsed, behind = now - s[TIME], false
  if elapsed < 0 then
    behind = true
    s[SKEW], now, elapsed = s[SKEW] - elapsed, s[TIME], 0
  end
  s[TIME] = now
  return s, now, elapsed, moved, aside, behind
end
