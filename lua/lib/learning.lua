-- Take in what a provider says about limits (lib/learned), and what an operator orders.
--
-- readings  how many; then for each the number of its limit in the chain, the limit that it
--           states (0: none), the capacity and the rate that this would mean, what remains
--           (-1: not known, or not to be relied on), marks (1: the provider refused the call,
--           2: the burst may shrink, 4: the rate is to be cut), the policy's limit in
--           the unit of the stated one, how
--           long a stated limit holds; then as text the model and the names of the limits,
--           a line each
--
-- A stated limit counts once it was stated three times in a row by different answers; one
-- that grows, when they came over ten seconds; one that is lower, at once with a refusal.
local READING, SIGHTINGS, SPREAD, FIXES, TOGETHER = 8, 3, 10000000, 6, 250000

-- A rate is cut to so much of itself, and to no less than so many parts of the whole.
local CUT, LEAST = 0.7, 8

local function same(a, b)
  return math.abs(a - b) <= 1e-9 * math.max(a, b)
end

-- What is known of the limits of a scope, by id, and the text of what is set aside.
local function known_of(scope)
  local text = asides[scope]
  if not text then
    return {}, ""
  end
  local list, cells, times = numbers(text), {}, {}
  local records, rest = learned().note_rest(list, 1, cells, times) or {}, ""
  for id, at in pairs(cells) do
    local last = at + window_by(id).cell - 1
    rest = rest .. string.sub(text, 8 * (at - 3) + 1, 8 * last)
  end
  return records, rest
end

-- Put what is known of a scope in force.
local function adopt(scope, records, rest)
  local q, s = numbers(ARGV[scope]), states[scope]
  local terms = learned().terms(q, records, s[TIME])
  in_terms().apply(q, terms)
  if slow[scope] then
    slow_down(q, slow[scope])
  end
  local p, at = RECORDS, CELLS + 1
  for _ = 1, q[COUNT] do
    if q[p] % SHADOW == BUCKET and s[at] > q[p + 2] then
      s[at] = q[p + 2]
    end
    local window = window_of(q[p])
    p, at = p + window.record, at + window.cell + 1
  end
  learned().append(s, at - 2, terms)
  s[VERSION] = terms and -q[VERSION] or q[VERSION]
  policies[scope], ends[scope] = q, at - 2 + (terms and #terms or 0)
  local text = rest .. learned().text(records, s[TIME])
  asides[scope] = text ~= "" and text or nil
end

-- The limit that the provider has stated, as far as it is known.
local function stated_before(k, o, now)
  return k[L_LIMIT] > 0 and now < k[L_UNTIL] and k[L_LIMIT] or o.policy
end

local function note_stated(k, o, now, granted, events)
  local before = stated_before(k, o, now)
  if same(o.stated, before) then
    k[L_OTHER], k[L_SEEN] = 0, 0
    if k[L_LIMIT] > 0 and now < k[L_UNTIL] then
      k[L_UNTIL] = now + o.life
    end
    return
  elseif granted < k[L_SINCE] then
    return -- of a time before the last change
  end
  if not same(o.stated, k[L_OTHER]) or now >= k[L_FIRST] + FORGOTTEN then
    k[L_OTHER], k[L_SEEN], k[L_FIRST] = o.stated, 0, now
  end
  k[L_SEEN] = k[L_SEEN] + 1
  local lower = o.stated < before
  local often = k[L_SEEN] >= SIGHTINGS and (lower or now >= k[L_FIRST] + SPREAD)
  if not often and not (lower and o.refused) then
    return
  end
  k[L_LIMIT], k[L_CAPACITY], k[L_RATE] = o.stated, o.capacity, o.rate
  k[L_UNTIL], k[L_SINCE], k[L_OTHER], k[L_SEEN] = now + o.life, now, 0, 0
  if same(o.stated, o.policy) then
    k[L_LIMIT] = 0
  end
  events[#events + 1] = {
    "type", lower and "limit_lowered" or "limit_learned", "limit", o.name,
    "from", string.format("%.15g", before), "to", string.format("%.15g", o.stated),
    "reason", o.refused and "refused" or "stated",
  }
end

-- By how much a level was corrected since a time; nil when nobody knows any more.
local function fixed_since(k, time)
  local sum = 0
  for i = L_FIXES, L_FIXES + 2 * FIXES - 2, 2 do
    if k[i] <= time then
      return sum
    end
    sum = sum + k[i + 1]
  end
  return nil
end

local function note_fix(k, now, amount)
  if now - k[L_FIXES] >= TOGETHER then
    for i = L_FIXES + 2 * FIXES - 1, L_FIXES + 2, -1 do
      k[i] = k[i - 2]
    end
    k[L_FIXES + 1] = 0
  end
  k[L_FIXES], k[L_FIXES + 1] = now, k[L_FIXES + 1] + amount
end

-- Lower a level that is above what the provider says remains, never raise it.
--
-- A provider counts a call when it arrives, so its words are about the moment of the grant:
-- `cell` and `cell_at` are our level then, `back` what of the grant the provider did not
-- count. What was granted, refunded and refilled since stays as it is; what was corrected
-- since, by the words of others, is not corrected again.
local function lower_level(k, o, q, p, s, at, cell, cell_at, granted, back, now)
  local kind, capacity, excess = q[p] % SHADOW, q[p + 2], nil
  if kind == BUCKET then
    excess = cell[cell_at] + back - o.remaining
    if s[at] >= capacity and excess <= q[p + 3] * (now - granted) then
      return -- it was whole meanwhile, and so may the provider's be
    end
  elseif kind ~= CONCURRENCY then
    -- Windows know what was spent, which another limit does not change; what was said of
    -- one that has ended counts no more.
    local later = s[at] - cell[cell_at]
    if later > 30 or kind == 3 and later ~= 0 then
      return
    end
    local spent = (o.stated > 0 and o.stated or capacity) - o.remaining
    excess = spent - cell[cell_at + 1] + back
  end
  local fixed = excess and excess >= 1 and fixed_since(k, granted)
  if fixed and excess - fixed >= 1 then
    excess = excess - fixed
    note_fix(k, now, excess)
    if kind == BUCKET then
      s[at] = s[at] - excess
    else
      windows[q[p]].charge(s, at, excess)
    end
  end
end

-- The burst of a limit is halved when the provider refuses though enough remains.
local function shrink_burst(k, q, p, granted, now)
  if granted >= k[L_SHRUNK] then
    local share = learned().burst(k, now) / 2
    k[L_BURST], k[L_SHRUNK] = math.max(share, math.min(1, 1 / q[p + 2])), now
  end
end

-- The rate of a limit is cut when the provider refuses and says nothing about it; what is left
-- of the level is not believed either, or the burst would be refused call by call. Calls that
-- were granted before the last cut were not yet slower for it, and cut no further.
local function cut_rate(k, s, at, granted, now)
  if granted > k[L_CUT] and not learned().is_held(k, now) then
    local parts = math.floor(CUT * PARTS * learned().share(k, now))
    k[L_SHARE], k[L_CUT] = math.max(parts, LEAST) / PARTS, now
    s[at] = math.min(s[at], 0)
  end
end

-- Readings as they stand in `list` from `at` on, and their names in `text`.
local function readings_of(list, at, text)
  local found, from = {}, at + 1
  local lines = string.gmatch(string.sub(text, 8 * (at + READING * list[at]) + 1), "[^\n]+")
  local model = lines()
  for i = 1, list[at] do
    local marks = list[from + 5]
    found[i] = {
      nth = list[from], stated = list[from + 1], capacity = list[from + 2],
      rate = list[from + 3], remaining = list[from + 4], refused = marks % 2 == 1,
      shrink = math.floor(marks / 2) % 2 == 1, cut = marks >= 4, policy = list[from + 6],
      life = list[from + 7], name = lines(),
    }
    from = from + READING
  end
  return found, model
end

-- Take in readings. `lease`, the wall time of its grant, `nth` and `held` are as open_lease
-- has them, or nil; `back` says what of a charge comes back since the provider refused.
local function learn(readings, lease, since, nth, held, back)
  local events, i = {}, 0
  for scope = 1, #states do
    local q, s, p, at = policies[scope], states[scope], RECORDS, CELLS + 1
    local records, rest, now = nil, nil, s[TIME]
    for _ = 1, q[COUNT] do
      i = i + 1
      local window = window_of(q[p])
      for _, o in ipairs(readings) do
        if o.nth == i then
          if not records then
            records, rest = known_of(scope)
          end
          local id = q[p + 1]
          local k = records[id] or learned().new()
          records[id] = k
          local n = lease and nth[id]
          n = n and lease[CHARGES + n] >= 0 and n
          local granted = n and math.min(now, since + s[SKEW]) or now
          if o.remaining >= 0 then
            if n then
              lower_level(k, o, q, p, s, at, lease, held[id], granted, back(n, i), now)
            else
              lower_level(k, o, q, p, s, at, s, at, now, 0, now)
            end
          end
          if o.stated > 0 then
            note_stated(k, o, now, granted, events)
          end
          if o.refused and o.shrink and o.remaining > 0 then
            shrink_burst(k, q, p, granted, now)
          end
          if o.cut then -- nobody knows when a call without a lease began
            cut_rate(k, s, at, n and granted or now - REGAINED, now)
          end
        end
      end
      p, at = p + window.record, at + window.cell + 1
    end
    if records then
      adopt(scope, records, rest)
    end
  end
  return events
end

-- Hold the n-th limit of a chain to `order`, or let go of it (order.limit 0).
local function hold_limit(nth, order)
  local events, i = {}, 0
  for scope = 1, #states do
    local q, p, now = policies[scope], RECORDS, states[scope][TIME]
    for _ = 1, q[COUNT] do
      i = i + 1
      if i == nth then
        local records, rest = known_of(scope)
        local k = records[q[p + 1]] or learned().new()
        records[q[p + 1]] = k
        local before = learned().is_held(k, now) and k[L_HELD] or 0
        if k[L_ORDER] ~= order.tag and (before > 0 or order.limit > 0) then
          k[L_HELD], k[L_HELD_CAPACITY], k[L_HELD_RATE] = order.limit, order.capacity, order.rate
          k[L_HELD_UNTIL], k[L_ORDER] = order.life < 0 and -1 or now + order.life, order.tag
          events[1] = {
            "type", "limit_override", "limit", order.name,
            "from", before > 0 and string.format("%.15g", before) or "none",
            "to", order.limit > 0 and string.format("%.15g", order.limit) or "none",
            "reason", order.reason, "actor", order.actor,
          }
        end
        adopt(scope, records, rest)
      end
      p = p + window_of(q[p]).record
    end
  end
  return events
end

return { readings = readings_of, learn = learn, hold = hold_limit, publish = publish }
