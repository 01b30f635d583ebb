-- Every limit of the chain at once: what fits, what it costs, what is left.
--
-- `states[i]` is the i-th scope; its policy is ARGV[i] and its key KEYS[i].

-- Open the scopes into `states` and look at every limit as it is now; the i-th is
-- asked for amounts[offset + i]. Returns the number of the enforced limit that binds
-- longest and for how long: 0 when all have room, STALE when the boundaries of a
-- calendar are. A limit that can never fit binds before all. Third, the set of places
-- in `amounts` whose limits are shadows without room, or nil.
local function survey(texts, states, scopes, amounts, offset, wall)
  local worst, longest, i, refused = 0, 0, offset, nil
  for scope = 1, scopes do
    local s, m, now, elapsed = open_scope(texts[scope], ARGV[scope], wall)
    states[scope] = s
    local p, at = RECORDS, m + CELLS
    for _ = 1, s[COUNT] do
      i = i + 1
      local kind, amount, wait = s[p], amounts[i], 0
      if kind % SHADOW == BUCKET then
        local level, capacity, rate = s[at], s[p + 3], s[p + 4]
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
        end
        p, at = p + BUCKET_RECORD, at + 1
      else
        local window = windows[kind] or window_of(kind)
        wait = window.look(s, p, at, amount, now, wall)
        if wait == STALE then
          return STALE
        end
        p, at = p + window.record, at + s[p + 2]
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
  end
  return worst, longest, refused
end

-- Charge one limit, or refund it when the amount is negative, and return what moved.
-- A refund needs to know what was charged: `held` and `held_at` are the cell then.
local function charge(s, p, at, amount, held, held_at)
  if s[p] % SHADOW == BUCKET then
    local level, capacity = s[at] - amount, s[p + 3]
    s[at] = level < capacity and level or capacity
    return amount
  end
  return windows[s[p]].charge(s, p, at, amount, held, held_at)
end

-- Write every scope back and return their texts in a row after `texts`. A scope is kept until its
-- slowest limit is whole again, and for as long again, so that most writes leave the
-- expiry alone.
local function save_all(states, wall, texts)
  for scope = 1, #states do
    local s, policy = states[scope], ARGV[scope]
    local m = #policy / 8 + 1
    local p, at, needed = RECORDS, m + CELLS, s[1]
    for _ = 1, s[COUNT] do
      local keep
      if s[p] % SHADOW == BUCKET then
        keep = (s[p + 3] - s[at]) / s[p + 4]
        p, at = p + BUCKET_RECORD, at + 1
      else
        local window = windows[s[p]]
        keep = window.keep(s, p, at, wall)
        p, at = p + window.record, at + s[p + 2]
      end
      if keep > needed then
        needed = keep
      end
    end
    local expires = s[m + 2] - wall < needed
    if expires then
      s[m + 2] = wall + 2 * needed
    end
    local text = policy .. text_of(s, m, at - 1)
    if expires then
      redis.call("SET", KEYS[scope], text, "PX", math.ceil(needed / 500) + 1000)
    else
      redis.call("SET", KEYS[scope], text, "KEEPTTL")
    end
    texts = texts .. text
  end
  return texts
end
