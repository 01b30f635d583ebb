-- What is known of a limit beside its policy: the limit that its provider states, the one
-- that an operator holds it to, how much of its burst comes through, how its level was
-- corrected, and to what share its rate was cut. It stands behind the state of its
-- scope (lib/layout):
--
--   terms   when they are to be made anew, until when the last of them holds; then per limit
--           the capacity and the rate that are in force
--   record  the limit's id, negative; the limit that the provider states (0: none), its
--           capacity, its rate, until when that holds; another limit that was stated since
--           (0: none), how often, when first; when the stated limit changed last; the limit
--           of an operator (0: none), its capacity, its rate, until when that holds (-1:
--           until it is cleared), the operator's last order; the share of the burst, when
--           it shrank; six corrections of the level, the newest first: time, amount; the
--           share of the rate, when it was cut
--
-- An operator's limit counts before a stated one, and a stated one where it is lower than
-- the policy's, or where the policy says that limits may grow. Times are the scope's.
local TERMS, LEARNED = 2, 29
local L_LIMIT, L_CAPACITY, L_RATE, L_UNTIL, L_OTHER, L_SEEN, L_FIRST = 1, 2, 3, 4, 5, 6, 7
local L_SINCE, L_HELD, L_HELD_CAPACITY, L_HELD_RATE, L_HELD_UNTIL = 8, 9, 10, 11, 12
local L_ORDER, L_BURST, L_SHRUNK, L_FIXES, L_SHARE, L_CUT = 13, 14, 15, 16, 28, 29
local FOREVER, FORGOTTEN = 1000000000000000000, 3600000000

-- How a limit learns, two bits of the policy's number for each.
local DOWN, BOTH = 0, 1

-- A burst is whole again ten minutes after it was nothing, in steps.
local WHOLE_AGAIN, BURST_STEP = 600000000, 15000000

-- A rate that was cut regains a 64th of itself every ten seconds. Shares are whole 64ths, so
-- that levels stay exact where rates are.
local PARTS, REGAINED = 64, 10000000

-- Both sets of functions are built when first needed: most scopes know nothing but their
-- policies, and where terms are in force they are all that a decision needs.
local terms_functions
local function in_terms()
  if terms_functions then
    return terms_functions
  end

  -- Let terms that stand in `list` from `at` on (default: all of it) replace capacities and
  -- rates of a policy.
  local function apply_terms(q, list, at)
    local p = RECORDS
    if not list then
      return
    end
    at = (at or 1) + TERMS
    for _ = 1, q[COUNT] do
      q[p + 2] = list[at]
      if q[p] % SHADOW == BUCKET then
        q[p + 3] = list[at + 1]
        p = p + BUCKET_RECORD
      else
        p = p + window_of(q[p]).record
      end
      at = at + 2
    end
  end

  -- Put terms in force that stand in the state `s`; false when it is time to look at them anew.
  local function keep_terms(q, s, wall)
    local p, at = RECORDS, CELLS
    for _ = 1, q[COUNT] do
      local plain = q[p] % SHADOW == BUCKET
      local window = not plain and window_of(q[p])
      p = p + (plain and BUCKET_RECORD or window.record)
      at = at + 1 + (plain and BUCKET_CELL or window.cell)
    end
    if math.max(wall + s[SKEW], s[TIME]) >= s[at] then
      return false
    end
    apply_terms(q, s, at)
    return true
  end

  terms_functions = { apply = apply_terms, keep = keep_terms }
  return terms_functions
end

local learned_functions
local function learned()
  if learned_functions then
    return learned_functions
  end

  local function mode_of(q, nth)
    return nth > 26 and DOWN or math.floor(q[LEARN] / 4 ^ (nth - 1)) % 4
  end

  -- The share of a burst that shrank some time ago.
  local function burst_of(k, now)
    return math.min(1, k[L_BURST] + math.max(0, now - k[L_SHRUNK]) / WHOLE_AGAIN)
  end

  -- The share of a rate that was cut some time ago.
  local function share_of(k, now)
    return math.min(1, k[L_SHARE] + math.floor(math.max(0, now - k[L_CUT]) / REGAINED) / PARTS)
  end

  local function is_held(k, now)
    return k[L_HELD] > 0 and (k[L_HELD_UNTIL] < 0 or now < k[L_HELD_UNTIL])
  end

  -- Capacity and rate of one limit now; when to look again, and until when it differs.
  local function in_force(k, q, p, nth, now)
    local bucket = q[p] % SHADOW == BUCKET
    local capacity, rate, look, lasts = q[p + 2], bucket and q[p + 3] or 0, FOREVER, 0
    if is_held(k, now) then
      capacity, rate = k[L_HELD_CAPACITY], k[L_HELD_RATE]
      look = k[L_HELD_UNTIL] < 0 and FOREVER or k[L_HELD_UNTIL]
      lasts = look
    elseif k[L_LIMIT] > 0 and now < k[L_UNTIL] then
      local mode = mode_of(q, nth)
      if mode == BOTH then
        capacity, rate = k[L_CAPACITY], k[L_RATE]
      elseif mode == DOWN then
        capacity, rate = math.min(capacity, k[L_CAPACITY]), math.min(rate, k[L_RATE])
      end
      look, lasts = k[L_UNTIL], k[L_UNTIL]
    end
    local burst, share = burst_of(k, now), share_of(k, now)
    if burst < 1 then
      capacity = math.max(math.min(1, capacity), capacity * burst)
      look = math.min(look, now + BURST_STEP)
      lasts = math.max(lasts, k[L_SHRUNK] + WHOLE_AGAIN)
    end
    if share < 1 and not is_held(k, now) then
      rate = rate * share
      look = math.min(look, now + REGAINED - math.max(0, now - k[L_CUT]) % REGAINED)
      lasts = math.max(lasts, k[L_CUT] + (1 - k[L_SHARE]) * PARTS * REGAINED)
    end
    return capacity, rate, look, lasts
  end

  -- The terms of a scope, or nil where its policy says it all.
  local function terms_of(q, records, now)
    local terms, p, differs = { FOREVER, 0 }, RECORDS, false
    for nth = 1, q[COUNT] do
      local k, capacity = records[q[p + 1]], q[p + 2]
      local own = q[p] % SHADOW == BUCKET and q[p + 3] or 0
      local rate = own
      if k then
        local look, lasts
        capacity, rate, look, lasts = in_force(k, q, p, nth, now)
        -- A limit held to what it is anyway still hides what the provider states.
        if capacity ~= q[p + 2] or rate ~= own or is_held(k, now) then
          differs = true
          terms[1], terms[2] = math.min(terms[1], look), math.max(terms[2], lasts)
        end
      end
      terms[#terms + 1], terms[#terms + 2] = capacity, rate
      p = p + window_of(q[p]).record
    end
    return differs and terms or nil
  end

  -- Records as they stand behind a state, without those that nobody needs any more.
  local function text_of_records(records, now)
    local list = {}
    for id, k in pairs(records) do
      if
        (k[L_LIMIT] > 0 and now < k[L_UNTIL])
        or k[L_OTHER] > 0 and now < k[L_FIRST] + FORGOTTEN
        or is_held(k, now)
        or burst_of(k, now) < 1
        or now < math.max(k[L_FIXES], k[L_SINCE], k[L_CUT]) + FORGOTTEN
      then
        list[#list + 1] = -id
        for i = 1, LEARNED do
          list[#list + 1] = k[i]
        end
      end
    end
    return #list > 0 and text_of(list, 1, #list) or ""
  end

  local function nothing_known()
    local k = {}
    for i = 1, LEARNED do
      k[i] = 0
    end
    k[L_BURST], k[L_SHARE] = 1, 1
    return k
  end

  -- Write terms behind the cells of a state, which end at `last`.
  local function append_terms(s, last, terms)
    for i = 1, terms and #terms or 0 do
      s[last + i] = terms[i]
    end
  end

  -- What stands behind a state from `at` on: asides into `cells` and `times`. Returns what is
  -- learned, by limit id, or nil.
  local function note_rest(s, at, cells, times)
    local records
    while at < #s do
      local id = s[at]
      if id < 0 then
        records = records or {}
        records[-id] = { unpack(s, at + 1, at + LEARNED) }
        at = at + 1 + LEARNED
      else
        times[id], cells[id] = s[at + 1], at + 2
        at = at + 2 + window_by(id).cell
      end
    end
    return records
  end

  learned_functions = {
    terms = terms_of,
    append = append_terms,
    note_rest = note_rest,
    text = text_of_records,
    new = nothing_known,
    is_held = is_held,
    burst = burst_of,
    share = share_of,
  }
  return learned_functions
end
