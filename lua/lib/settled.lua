-- Settle what is ordinary: leases that are open, of the limits that there are now (lib/fast);
-- reports that say no more than what was used, of calls that have ended well and count for a calm
-- circuit (lib/success).
local REPORTED = 7

-- Take in `reports`, each `size` bytes and with its lease at KEYS[first] and on, until one is
-- anything else: of it, and of those behind it, nothing is done. `texts` are the values of KEYS;
-- the circuit stands at `place`, the pin behind it. Returns how many are taken in, and the
-- lease of each.
local function settle_at_once(texts, scopes, place, reports, size, first, wall)
  local unpacked, packed, sub = struct.unpack, struct.pack, string.sub
  local policy, seen = ARGV[scopes + 1], nil
  if policy ~= "" then
    seen = watch_calmly(policy, texts[place], texts[place + 1], wall)
    if not seen then
      return 0
    end
  end
  local policies, states = open_buckets(texts, scopes, wall)
  if not policies then
    return 0
  end
  local limits, length = 0, 0
  for scope = 1, scopes do
    limits, length = limits + states[scope][COUNT], length + CELLS - 1
  end
  local base = CHARGES + limits
  if base + SKEW >= #DOUBLES then
    return 0
  end
  length = 8 * (base + length + 2 * limits)

  local leases, lasting, known = { false }, { false, false, false, false }, nil
  local told, held = sub(DOUBLES, 1, REPORTED + limits + 1), sub(DOUBLES, 1, base + SKEW + 1)
  local settled, all, span, px = 0, #reports / size, nil, nil
  for n = 1, all do
    local from, key, text = size * (n - 1), KEYS[first + n - 1], texts[first + n - 1]
    if not text or #text < length or known and known[key] then
      break
    end
    local report, lease = { unpacked(told, reports, from + 1) }, { unpacked(held, text) }
    local granted, ends = lease[base + TIME] - lease[base + SKEW], 8 * base
    local ordinary = lease[1] == report[2] and lease[SETTLED] == 0 and wall < granted + lease[TTL]
      and report[3] == 0 -- no first token, and nothing that a provider has said
    if policy ~= "" then
      ordinary = ordinary and report[4] == SUCCESS and report[6] == 0 -- not slow
        and lease[MARKS] % 512 < 32 and lease[EPOCH] == seen.generation
    end
    for scope = 1, scopes do
      ordinary = ordinary and sub(text, ends + 1, ends + 8) == sub(ARGV[scope], 1, 8)
      ends = ends + 8 * (CELLS - 1 + 2 * states[scope][COUNT])
    end
    if not ordinary then
      break
    end
    for i = 1, limits do
      local used = report[REPORTED + i]
      report[REPORTED + i] = used >= 0 and used - lease[CHARGES + i] or 0
    end
    local i = REPORTED
    for scope = 1, scopes do
      local longer
      i, longer = charge_buckets(policies[scope], states[scope], report, i, wall)
      lasting[scope] = longer or lasting[scope]
    end
    if seen then
      count_success(seen, lease[MARKS] % 32)
    end
    text = sub(text, 1, 8 * SETTLED - 8) .. packed("<d", wall) .. sub(text, 8 * SETTLED + 1)
      .. packed(sub(DOUBLES, 1, limits + 1), unpack(report, REPORTED + 1, REPORTED + limits))
    if lease[REMEMBER] ~= span then
      span = lease[REMEMBER]
      px = string.format("%d", math.ceil(span / 1000))
    end
    redis.call("SET", key, text, "PX", px)
    leases[n], settled = text, n
    if all > 1 then
      known = known or {}
      known[key] = true
    end
  end

  if settled > 0 then
    save_buckets(texts, scopes, states, lasting)
    if seen then
      local kept = string.format("%d", math.ceil(seen.life / 1000))
      redis.call("SET", KEYS[place], text_with_successes(seen), "PX", kept)
    end
  end
  return settled, leases
end
