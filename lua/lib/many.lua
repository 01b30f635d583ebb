-- Chains of any length, and calls of any kind that are ordinary: what lib/few leaves.
local function form_of(length)
  return length < #DOUBLES and sub(DOUBLES, 1, length + 1) or "<" .. string.rep("d", length)
end

local q = { unpacked(form_of(#terms / 8), terms) }
local where = scopes > 1 and places or { place } -- the scopes are in KEYS

-- The states of all scopes, with their levels as they are now; nil where they are not ordinary.
-- Terms are in force for some time.
local function open_states()
  local states, p = { false, false, false, false }, TERMS_OF_SCOPES
  for scope = 1, scopes do
    local old, last = texts[where[scope]], CELLS - 1 + 2 * q[p + 2]
    if not old or #old < 8 * last then
      return nil -- new, or under another policy
    end
    local s = { unpacked(form_of(last), old) }
    local elapsed = wall + s[SKEW] - s[TIME]
    if s[VERSION] ~= q[p] or elapsed < 0 then
      in_terms = s[VERSION] == -q[p]
      return nil -- under another policy or terms; or the clock has stepped back
    end
    s[TIME], p = wall + s[SKEW], p + 3
    for at = CELLS + 1, last, 2 do
      local level, capacity = s[at] + elapsed * q[p + 1], q[p]
      s[at] = level > capacity and capacity or level
      p = p + 2
    end
    states[scope] = s
  end
  return states
end

-- The states as texts, and, where the state of a scope is to be kept for longer, for how many
-- milliseconds; unless they are `idle`, and not to be written.
local function pack_states(states, idle)
  local whole, lasting, p = {}, nil, TERMS_OF_SCOPES
  for scope = 1, scopes do
    local s, needed, last = states[scope], q[p + 1], CELLS - 1 + 2 * q[p + 2]
    p = p + 3
    for at = CELLS + 1, last, 2 do
      local keep = (q[p] - s[at]) / q[p + 1]
      if keep > needed then
        needed = keep
      end
      p = p + 2
    end
    if needed > AGES then
      needed = AGES
    end
    if not idle and s[KEPT] - wall < needed then
      lasting = lasting or {}
      s[KEPT], lasting[scope] = wall + 2 * needed, math.ceil(needed / 500) + 1000
    end
    whole[scope] = packed(form_of(last), unpack(s, 1, last))
  end
  return whole, lasting
end

-- Write states back over what was there.
local function save_states(whole, lasting)
  for scope = 1, scopes do
    local state, nth = whole[scope], where[scope]
    local key, old = keys[nth], texts[nth]
    if #old > #state then -- what is set aside, and what is learned
      state = state .. sub(old, #state + 1)
    end
    if lasting and lasting[scope] then
      call("SET", key, state, "PX", lasting[scope])
    else
      call("SET", key, state, "KEEPTTL")
    end
    texts[nth] = state
  end
end
