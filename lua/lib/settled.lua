-- Settle what is ordinary (lib/ordinary): leases that are open, of the limits that there are now;
-- reports that say no more than what was used, of calls that have ended well and count for a calm
-- circuit (lib/success).

-- What a lease holds from the charges on, up to the states, and how long it is.
local base, length = CHARGES + limits, CHARGES + limits + scopes * (CELLS - 1) + 2 * limits

-- Whether the states in a lease are of the policies that there are now.
local function is_of_now(text)
  local at, p = 8 * base + 1, TERMS_OF_SCOPES
  for _ = 1, scopes do
    if unpacked("<d", text, at) ~= q[p] then
      return false
    end
    at, p = at + 8 * (CELLS - 1 + 2 * q[p + 2]), p + 3 + 2 * q[p + 2]
  end
  return true
end

-- Give back to the states what a lease did not use, or take what it used beyond its charges.
-- Returns what has moved on each limit.
local function move(states, lease, report)
  local moved, i, p = {}, 0, TERMS_OF_SCOPES
  for scope = 1, scopes do
    local s = states[scope]
    p = p + 3
    for at = CELLS + 1, CELLS - 1 + 2 * s[COUNT], 2 do
      i = i + 1
      local used = report[REPORTED + i]
      if used >= 0 then
        local more = used - lease[CHARGES + i]
        local level = s[at] - more
        moved[i], s[at] = more, level < q[p] and level or q[p]
      else
        moved[i] = 0
      end
      p = p + 2
    end
  end
  return moved
end

-- Take in what is told, each about the lease at its place behind `first` in `texts`, until a
-- report is not ordinary. Returns the leases as they are then.
local function settle_in_turn(states)
  local size, told, held = 8 * (REPORTED + limits), form_of(REPORTED + limits), form_of(base + SKEW)
  local settled, span, px = {}, nil, nil
  for n = 1, all do
    local key, text = keys[first + n], texts[first + n]
    if not text or #text ~= 8 * length or known and known[key] then
      break
    end
    local report, lease = { unpacked(told, asked, size * (n - 1) + 1) }, { unpacked(held, text) }
    local granted = lease[base + TIME] - lease[base + SKEW]
    local ordinary = lease[1] == report[2] and lease[SETTLED] == 0 and wall < granted + lease[TTL]
      and report[3] == 0 -- no first token, and nothing that a provider has said
      and lease[LIMITS] == limits and is_of_now(text)
    if watched then
      ordinary = ordinary and report[4] == SUCCESS and report[6] == 0 -- not slow
        and lease[MARKS] % 512 < 32 and lease[EPOCH] == watched.generation
      if ordinary then
        busy = with_worker(busy, lease[MARKS] % 32)
      end
    end
    if not ordinary then
      break
    end
    local moved = move(states, lease, report)
    text = packed(SETTLE, text, wall, sub(text, 8 * SETTLED + 1),
      packed(form_of(limits), unpack(moved, 1, limits)))
    if lease[REMEMBER] ~= span then
      span = lease[REMEMBER]
      px = string.format("%d", math.ceil(span / 1000))
    end
    call("SET", key, text, "PX", px)
    settled[n] = text
    if known then
      known[key] = true
    end
  end
  return settled
end

busy = watched and watched.workers -- as if lib/few had never looked
local states = open_states()
if states then
  reply = settle_in_turn(states)
  if #reply > 0 then
    save_states(pack_states(states))
  end
end
