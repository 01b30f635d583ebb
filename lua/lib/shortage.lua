-- One scope against one request, after `survey` has opened it.

-- The ids of the limits of a scope that lack room for what `ask` says from its place i + 1
-- on, or nil; and the longest wait for one (NEVER binds before all). Shadows without room
-- are noted in `refused` by their place.
local function shortage(scope, ask, i, wall, refused)
  local q, s, p, at = policies[scope], states[scope], RECORDS, CELLS + 1
  local short, longest
  for _ = 1, q[COUNT] do
    i = i + 1
    local kind, id, amount, wait = q[p], q[p + 1], ask[i], 0
    if kind % SHADOW == BUCKET then
      if amount - s[at] > 1e-6 then
        wait = amount > q[p + 2] and NEVER or math.ceil((amount - s[at]) / q[p + 3])
        if slow[scope] and wait > 0 then
          wait = wait_while_growing(wait, slow[scope])
        end
      end
      p, at = p + BUCKET_RECORD, at + BUCKET_CELL + 1
    else
      local window = windows[kind]
      wait = window.look(q, p, s, at, amount, s[TIME], wall)
      p, at = p + window.record, at + window.cell + 1
    end
    if wait ~= 0 then
      if kind > SHADOW then
        refused[i] = true
      else
        short = short or {}
        short[#short + 1] = id
        if longest ~= NEVER and (not longest or wait > longest or wait == NEVER) then
          longest = wait
        end
      end
    end
  end
  return short, longest
end

-- Whether a limit of the scope that `ask` needs is among the pairs of id and tag in
-- `closed` from place `from` on, by somebody whose tag is `turn` or below.
local function needs_closed(scope, ask, i, closed, from, turn)
  local q, p = policies[scope], RECORDS
  for _ = 1, q[COUNT] do
    i = i + 1
    if ask[i] > 0 and q[p] <= SHADOW then
      for c = from, #closed, 2 do
        if closed[c] == q[p + 1] and closed[c + 1] <= turn then
          return true
        end
      end
    end
    p = p + window_of(q[p]).record
  end
  return false
end

-- Add what is in short supply to the pairs of `closed`, unless it is closed already for
-- whoever comes at `turn` or later.
local function close_short(short, closed, from, turn)
  for _, id in ipairs(short) do
    local known = false
    for c = from, #closed, 2 do
      known = known or closed[c] == id and closed[c + 1] <= turn
    end
    if not known then
      closed[#closed + 1], closed[#closed + 2] = id, turn
    end
  end
end

-- Room of every limit of a scope, after `rooms`.
local function add_rooms(scope, rooms)
  local q, s, p, at = policies[scope], states[scope], RECORDS, CELLS + 1
  for _ = 1, q[COUNT] do
    local kind = (q[p] - 1) % SHADOW + 1
    local window = window_of(q[p])
    if kind == BUCKET then
      rooms[#rooms + 1] = s[at]
    elseif kind == RAMP then
      rooms[#rooms + 1] = window.room(q, p, s, at)
    else
      rooms[#rooms + 1] = q[p + 2] - s[at + (kind == CONCURRENCY and 0 or 1)]
    end
    p, at = p + window.record, at + window.cell + 1
  end
end
