-- Grant what is ordinary without building what decides over everything else, which costs more
-- than the decision: first attempts, limits that are enforced buckets with room, states that
-- their policies know, a calm circuit (lib/calm), nobody waiting. This does what the rest of
-- acquire does (lib/limits, lib/granting), for many requests of one chain as one after
-- another would have it done at the same moment: states are read and written once.
--
-- Here a table more is seen in what a decision costs: those that are needed have their size from
-- the beginning, and states are charged where they were decoded.
local DOUBLES = "<dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

-- Decide over `requests`, each `size` bytes and with its lease at KEYS[first] and on, until one
-- is anything else: of it, and of those behind it, nothing is done. `texts` are the values of
-- KEYS; the circuit stands at `place`, the pin behind it. Returns how many are decided; the
-- lease of each; and, where not all of them are granted, the letters of those that are not, as
-- acquire has them: repeated, or in conflict with a lease.
local function grant_at_once(texts, scopes, place, requests, size, first, wall)
  local unpacked, packed, sub = struct.unpack, struct.pack, string.sub
  local policy, generation, earned, life = ARGV[scopes + 1], 1, nil, nil
  if policy ~= "" then
    generation, earned, life = pass_calmly(policy, texts[place], texts[place + 1], wall)
    if not generation then
      return 0
    end
  end

  local policies, states, lasting = { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, { false, false, false, false }
  for scope = 1, scopes do
    local rules, text = ARGV[scope], texts[scope]
    if not text or sub(text, 1, 8) ~= sub(rules, 1, 8) then
      return 0 -- new, or under another policy or terms
    end
    local count = #rules / 8
    if count >= #DOUBLES then
      return 0
    end
    local q = { unpacked(sub(DOUBLES, 1, count + 1), rules) }
    local last = CELLS - 1 + 2 * q[COUNT]
    local s = { unpacked(sub(DOUBLES, 1, last + 1), text) }
    local now = wall + s[SKEW]
    local elapsed, p = now - s[TIME], RECORDS
    if elapsed < 0 then
      return 0 -- the clock has stepped back
    end
    s[TIME] = now
    for at = CELLS + 1, last, 2 do
      if q[p] ~= BUCKET then
        return 0
      end
      local level, capacity = s[at] + elapsed * q[p + 3], q[p + 2]
      s[at] = level > capacity and capacity or level
      p = p + BUCKET_RECORD
    end
    policies[scope], states[scope] = q, s
  end

  local leases, letters, known, span, px = { false }, nil, nil, nil, nil
  local decided, granted, all = 0, 0, #requests / size
  for n = 1, all do
    local from, key = size * (n - 1), KEYS[first + n - 1]
    local lease = texts[first + n - 1] or known and known[key]
    if lease then
      letters = letters or {}
      local same = sub(lease, 9, 16) == sub(requests, from + 9, from + 16)
      letters[n], leases[n] = same and "R" or "C", same and lease or ""
    else
      local ask = { unpacked(sub(DOUBLES, 1, size / 8 + 1), requests, from + 1) }
      local i, fits = CHARGES, policy == "" or ask[MARKS] % 1024 < 512 -- no retry
      for scope = 1, scopes do
        local s = states[scope]
        for at = CELLS + 1, CELLS - 1 + 2 * s[COUNT], 2 do
          i = i + 1
          if ask[i] - s[at] > 1e-6 then -- as in lib/limits
            fits = false
          end
        end
      end
      if not fits then
        break
      end
      lease = sub(requests, from + 1, from + size)
      if generation ~= 1 then
        lease = sub(lease, 1, 8 * EPOCH - 8) .. packed("<d", generation) .. sub(lease, 8 * EPOCH + 1)
      end
      i = CHARGES
      for scope = 1, scopes do
        local q, s = policies[scope], states[scope]
        local needed, p, last = q[KEEP], RECORDS, CELLS - 1 + 2 * s[COUNT]
        for at = CELLS + 1, last, 2 do
          i = i + 1
          local level = s[at] - ask[i]
          local keep = (q[p + 2] - level) / q[p + 3]
          if keep > needed then
            needed = keep
          end
          s[at], p = level, p + BUCKET_RECORD
        end
        if s[KEPT] - wall < needed then
          s[KEPT], lasting[scope] = wall + 2 * needed, math.ceil(needed / 500) + 1000
        end
        lease = lease .. packed(sub(DOUBLES, 1, last + 1), unpack(s, 1, last))
      end
      if ask[TTL] + ask[REMEMBER] ~= span then
        span = ask[TTL] + ask[REMEMBER]
        px = string.format("%d", math.ceil(span / 1000))
      end
      redis.call("SET", key, lease, "PX", px)
      leases[n], granted = lease, granted + 1
      if all > 1 then
        known = known or {}
        known[key] = lease
      end
    end
    decided = n
  end

  if granted > 0 then
    for scope = 1, scopes do
      local s, text = states[scope], texts[scope]
      local last = CELLS - 1 + 2 * s[COUNT]
      -- Behind it stands what is set aside, and what is learned.
      local whole = packed(sub(DOUBLES, 1, last + 1), unpack(s, 1, last)) .. sub(text, 8 * last + 1)
      if lasting[scope] then
        redis.call("SET", KEYS[scope], whole, "PX", lasting[scope])
      else
        redis.call("SET", KEYS[scope], whole, "KEEPTTL")
      end
    end
    if earned then
      if granted > 1 then
        earned = earn_more(policy, earned, granted - 1)
      end
      redis.call("SET", KEYS[place + 1], earned, "PX", string.format("%d", math.ceil(life / 1000)))
    end
  end
  return decided, leases, letters
end
