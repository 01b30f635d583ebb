-- Grant what is ordinary: first attempts, limits with room (lib/fast), under a calm circuit
-- (lib/calm). Somebody else sees to it that nobody waits.

-- Decide over `requests`, each `size` bytes and with its lease at KEYS[first] and on, until one
-- is anything else: of it, and of those behind it, nothing is done. `texts` are the values of
-- KEYS; the circuit stands at `place`, the pin behind it. Returns how many are decided; the
-- lease of each, empty in a conflict; and, where not all of them are granted, the letters of
-- those that are not, as acquire has them: repeated, or in conflict with a lease.
local function grant_at_once(texts, scopes, place, requests, size, first, wall)
  local unpacked, sub = struct.unpack, string.sub
  local policy, generation, earned, life = ARGV[scopes + 1], 1, nil, nil
  if policy ~= "" then
    generation, earned, life = pass_calmly(policy, texts[place], texts[place + 1], wall)
    if not generation then
      return 0
    end
  end
  local policies, states = open_buckets(texts, scopes, wall)
  if not policies or size / 8 >= #DOUBLES then
    return 0
  end

  local leases, lasting, letters, known = { false }, { false, false, false, false }, nil, nil
  local decided, granted, all = 0, 0, #requests / size
  local form, span, px = sub(DOUBLES, 1, size / 8 + 1), nil, nil
  for n = 1, all do
    local from, key = size * (n - 1), KEYS[first + n - 1]
    local lease = texts[first + n - 1] or known and known[key]
    if lease then
      local same = sub(lease, 9, 16) == sub(requests, from + 9, from + 16)
      letters = letters or {}
      letters[n], leases[n] = same and "R" or "C", same and lease or ""
    else
      local ask = { unpacked(form, requests, from + 1) }
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
        lease = sub(lease, 1, 8 * EPOCH - 8) .. struct.pack("<d", generation)
          .. sub(lease, 8 * EPOCH + 1)
      end
      i = CHARGES
      for scope = 1, scopes do
        local longer
        i, longer = charge_buckets(policies[scope], states[scope], ask, i, wall)
        lasting[scope] = longer or lasting[scope]
        lease = lease .. text_of_buckets(states[scope])
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
    save_buckets(texts, scopes, states, lasting)
    if earned then
      if granted > 1 then
        earned = earn_more(policy, earned, granted - 1)
      end
      local kept = string.format("%d", math.ceil(life / 1000))
      redis.call("SET", KEYS[place + 1], earned, "PX", kept)
    end
  end
  return decided, leases, letters
end
