-- What is ordinary is decided without building what decides over everything else, which costs
-- more than the decision: limits that are enforced buckets, in states that their policies know.
-- lib/granted and lib/settled do with them what lib/limits, lib/granting and lib/holding do, for
-- many calls of one chain as one after another would have it done at the same moment: states
-- are read and written once. Whoever meets anything else leaves it to those.
--
-- Here a table more is seen in what a decision costs: those that are needed have their size from
-- the beginning, and states are changed where they were decoded.
local DOUBLES = "<dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

-- The policies and the states of all scopes, with their levels as they are now; nil where they
-- are not ordinary.
local function open_buckets(texts, scopes, wall)
  local unpacked, sub = struct.unpack, string.sub
  local policies, states = { 0, 0, 0, 0 }, { 0, 0, 0, 0 }
  for scope = 1, scopes do
    local rules, text = ARGV[scope], texts[scope]
    if not text or sub(text, 1, 8) ~= sub(rules, 1, 8) then
      return nil -- new, or under another policy or terms
    end
    local count = #rules / 8
    if count >= #DOUBLES then
      return nil
    end
    local q = { unpacked(sub(DOUBLES, 1, count + 1), rules) }
    local last = CELLS - 1 + 2 * q[COUNT]
    local s = { unpacked(sub(DOUBLES, 1, last + 1), text) }
    local now = wall + s[SKEW]
    local elapsed, p = now - s[TIME], RECORDS
    if elapsed < 0 then
      return nil -- the clock has stepped back
    end
    s[TIME] = now
    for at = CELLS + 1, last, 2 do
      if q[p] ~= BUCKET then
        return nil
      end
      local level, capacity = s[at] + elapsed * q[p + 3], q[p + 2]
      s[at] = level > capacity and capacity or level
      p = p + BUCKET_RECORD
    end
    policies[scope], states[scope] = q, s
  end
  return policies, states
end

-- Take what stands behind place `i` in `amounts` from the levels of one scope, or give it back
-- where it is negative. Returns the place of the last one, and, where the state is to be kept
-- for longer, for how many milliseconds from now.
local function charge_buckets(q, s, amounts, i, wall)
  local needed, p = q[KEEP], RECORDS
  for at = CELLS + 1, CELLS - 1 + 2 * s[COUNT], 2 do
    i = i + 1
    local level, capacity = s[at] - amounts[i], q[p + 2]
    if level > capacity then
      level = capacity
    end
    local keep = (capacity - level) / q[p + 3]
    if keep > needed then
      needed = keep
    end
    s[at], p = level, p + BUCKET_RECORD
  end
  needed = math.min(needed, AGES)
  if s[KEPT] - wall < needed then
    s[KEPT] = wall + 2 * needed
    return i, math.ceil(needed / 500) + 1000
  end
  return i
end

local function text_of_buckets(s)
  local last = CELLS - 1 + 2 * s[COUNT]
  return struct.pack(string.sub(DOUBLES, 1, last + 1), unpack(s, 1, last))
end

-- Write the states back; of each it is known whether its expiry is to move.
local function save_buckets(texts, scopes, states, lasting)
  for scope = 1, scopes do
    local whole, text = text_of_buckets(states[scope]), texts[scope]
    if #text > #whole then -- what is set aside, and what is learned
      whole = whole .. string.sub(text, #whole + 1)
    end
    if lasting[scope] then
      redis.call("SET", KEYS[scope], whole, "PX", lasting[scope])
    else
      redis.call("SET", KEYS[scope], whole, "KEEPTTL")
    end
  end
end
