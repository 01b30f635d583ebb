-- Every limit of the chain at once: what fits, what it costs, what is left.
--
-- ARGV[i] is the policy of the i-th scope and KEYS[i] its state. `ends` is where the cells
-- of a state end.
local policies, states, asides, ends = {}, {}, {}, {}

-- Scopes that begin anew here, whether something is taken or not: with limits that start below
-- their fill, and those of which a clock has stepped back.
local anew = {}

-- Scopes whose buckets refill at a share of their rate, since their model is being let in
-- again (lib/admission): the share, and what it gains in a microsecond.
local slow = {}

local function slow_down(q, share)
  local p = RECORDS
  for _ = 1, q[COUNT] do
    if q[p] % SHADOW == BUCKET then
      q[p + 3] = q[p + 3] * share[1]
      p = p + BUCKET_RECORD
    else
      p = p + window_of(q[p]).record
    end
  end
end

-- A wait at a rate that stays a share, as it is while the share grows.
local function wait_while_growing(wait, share)
  local now, gain = share[1], share[2]
  local grows = (1 - now) / gain
  local sooner = (math.sqrt(now * now + 4 * gain * now * wait) - now) / (2 * gain)
  return math.ceil(sooner <= grows and sooner or math.max(grows, wait * now))
end

-- A ramp that has room now may have none when another limit has: the number of the limit that
-- binds, and the first time at which all of them fit.
local function when_ramps_fit(ramps, worst, longest)
  local before
  repeat
    before = longest
    for _, r in ipairs(ramps) do
      local wait = r[1](r[3], r[4], r[5], r[6], r[7], r[8], longest)
      if wait > longest then
        worst, longest = r[2], wait
      end
    end
  until longest == before
  return worst, longest
end

-- Open every scope and look at every limit as it is now; the i-th is asked for
-- amounts[offset + i]. Returns the number of the enforced limit that binds longest and
-- for how long: 0 when all have room, STALE when the boundaries of a calendar are. A
-- limit that can never fit binds before all. Third, the set of places in `amounts` whose
-- limits are shadows without room, or nil.
local function survey(texts, scopes, amounts, offset, wall)
  local worst, longest, i, refused, ramps = 0, 0, offset, nil, nil
  for scope = 1, scopes do
    local q, share = numbers(ARGV[scope]), slow[scope]
    local text = texts[scope]
    local s, now, elapsed, moved, aside, behind = open_scope(text, q, wall)
    if share then
      slow_down(q, share)
    end
    policies[scope], states[scope] = q, s
    local p, at = RECORDS, CELLS + 1
    for _ = 1, q[COUNT] do
      i = i + 1
      local kind, amount, wait = q[p], amounts[i], 0
      if kind % SHADOW == BUCKET then
        local level, capacity, rate = s[at], q[p + 2], q[p + 3]
        level = level + elapsed * rate
        if level > capacity then
          level = capacity
        end
        s[at] = level
        -- The level is a sum of float products: a request due at exactly this
        -- microsecond may miss by the last bits, so admission forgives 1e-6 of a
        -- unit. It is charged in full, hence nothing drifts.
        if amount - level > 1e-6 then
          wait = amount > capacity and NEVER or math.ceil((amount - level) / rate)
          if share and wait > 0 then
            wait = wait_while_growing(wait, share)
          end
        end
        p, at = p + BUCKET_RECORD, at + BUCKET_CELL + 1
      else
        local window = windows[kind] or window_of(kind)
        local back
        wait, back = window.look(q, p, s, at, amount, now, wall)
        if wait == STALE then
          return STALE
        end
        behind = behind or back
        if window.fits and kind <= SHADOW then
          ramps = ramps or {}
          ramps[#ramps + 1] = { window.fits, i - offset, q, p, s, at, amount, now }
        end
        p, at = p + window.record, at + window.cell + 1
      end
      if wait ~= 0 then
        if kind > SHADOW then
          refused = refused or {}
          refused[i] = true
        elseif longest ~= NEVER and (wait > longest or wait == NEVER) then
          worst, longest = i - offset, wait
        end
      end
    end
    local last = at - 2
    if s[VERSION] < 0 then
      last = last + TERMS + 2 * q[COUNT]
    end
    ends[scope] = last
    if moved then
      asides[scope] = aside
      behind = behind or q[COLD_START] < 1
    elseif #text > 8 * last then
      asides[scope] = string.sub(text, 8 * last + 1)
    end
    anew[#anew + 1] = behind and scope or nil
  end
  if ramps and longest > 0 then
    worst, longest = when_ramps_fit(ramps, worst, longest)
  end
  return worst, longest, refused
end

-- Charge one limit, or refund it when the amount is negative, and return what moved.
-- A refund needs to know what was charged: `held` and `held_at` are the cell then.
local function charge(q, p, s, at, amount, held, held_at)
  if q[p] % SHADOW == BUCKET then
    local level, capacity = s[at] - amount, q[p + 2]
    s[at] = level < capacity and level or capacity
    return amount
  end
  return windows[q[p]].charge(s, at, amount, held, held_at)
end

-- Write one scope back and return its text. It is kept until its slowest limit is whole
-- again, and for as long again, so that most writes leave the expiry alone.
local function save(scope, wall)
  local q, s = policies[scope], states[scope]
  local p, at, needed = RECORDS, CELLS + 1, q[KEEP]
  for _ = 1, q[COUNT] do
    local keep
    if q[p] % SHADOW == BUCKET then
      keep = (q[p + 2] - s[at]) / q[p + 3]
      p, at = p + BUCKET_RECORD, at + BUCKET_CELL + 1
    else
      local window = windows[q[p]]
      keep = window.keep(q, p, s, at, wall)
      p, at = p + window.record, at + window.cell + 1
    end
    if keep > needed then
      needed = keep
    end
  end
  if s[VERSION] < 0 then -- terms are kept as long as they hold
    local lasts = s[at] - s[TIME]
    needed = lasts > needed and lasts or needed
  end
  needed = math.min(needed, AGES)
  local expires = s[KEPT] - wall < needed
  if expires then
    s[KEPT] = wall + 2 * needed
  end
  local text = text_of(s, 1, ends[scope])
  local whole = asides[scope] and text .. asides[scope] or text
  if expires then
    redis.call("SET", KEYS[scope], whole, "PX", math.ceil(needed / 500) + 1000)
  else
    redis.call("SET", KEYS[scope], whole, "KEEPTTL")
  end
  return text
end

-- Write every scope back and return their texts in a row after `texts`.
local function save_all(texts, wall)
  for scope = 1, #states do
    texts = texts .. save(scope, wall)
  end
  return texts
end

-- A limit that starts below its fill starts when it is first asked, refused or not: were that
-- not written, it would start again with each question, and never fill. Likewise a clock that has
-- stepped back: while all are refused, it would stand still until it has caught up.
local function begin_anew(wall)
  for _, scope in ipairs(anew) do
    save(scope, wall)
  end
end
