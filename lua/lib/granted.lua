-- Grant or deny what is ordinary (lib/ordinary): first attempts, for which nobody has asked yet.

-- The number of the limit that binds longest, and for how long (lib/limits).
local function binding(ask, states)
  local worst, longest, i, p = 0, 0, CHARGES, TERMS_OF_SCOPES
  for scope = 1, scopes do
    local s = states[scope]
    p = p + 3
    for at = CELLS + 1, CELLS - 1 + 2 * s[COUNT], 2 do
      i = i + 1
      local amount, level = ask[i], s[at]
      if amount - level > 1e-6 and longest ~= NEVER then
        local wait = amount > q[p] and NEVER or math.ceil((amount - level) / q[p + 1])
        if wait > longest or wait == NEVER then
          worst, longest = i - CHARGES, wait
        end
      end
      p = p + 2
    end
  end
  return packed("<dd", worst, longest)
end

-- Decide over what is asked, but for the requests in `skipped`; the states become those after
-- all that is granted. Returns for each request that is granted how long its lease is known, and,
-- where some are not, what binds those (neither: acquire has to decide); third, how many are
-- granted, fourth, how many of them are samples (lib/calm).
local function decide(states, skipped)
  local size, decoded = 8 * (CHARGES + limits), form_of(CHARGES + limits)
  local lasts, denied, granted, sampled = { false }, nil, 0, 0
  for n = 1, all do
    local ask, fits, i = { unpacked(decoded, asked, size * (n - 1) + 1) }, true, CHARGES
    if ask[MARKS] % 1024 >= 512 and gated > 0 then
      break -- a retry; and nobody goes past it
    elseif not (skipped and skipped[n]) then
      for scope = 1, scopes do
        local s = states[scope]
        for at = CELLS + 1, CELLS - 1 + 2 * s[COUNT], 2 do
          i = i + 1
          if ask[i] - s[at] > 1e-6 then -- as in lib/limits
            fits = false
          end
        end
      end
      if fits then
        i, lasts[n], granted = CHARGES, ask[TTL] + ask[REMEMBER], granted + 1
        if ask[1] % SAMPLE == 0 then
          sampled = sampled + 1
        end
        for scope = 1, scopes do
          local s = states[scope]
          for at = CELLS + 1, CELLS - 1 + 2 * s[COUNT], 2 do
            i = i + 1
            s[at] = s[at] - ask[i]
          end
        end
      else
        denied = denied or {}
        denied[n] = binding(ask, states)
      end
    end
  end
  return lasts, denied, granted, sampled
end

-- Write the leases of those who are granted: what is asked, and `after`, the states. Returns the
-- last; nil when a request had one already, and then none are written.
local function write_leases(after)
  local size, lease, kept_for, px = 8 * (CHARGES + limits), "", nil, nil
  local epoch = generation ~= 1 and packed("<d", generation)
  for n = 1, all do
    if lives[n] then
      lease = all == 1 and asked or sub(asked, size * (n - 1) + 1, size * n)
      if epoch then
        lease = sub(lease, 1, 8 * EPOCH - 8) .. epoch .. sub(lease, 8 * EPOCH + 1)
      end
      lease = lease .. after
      if lives[n] ~= kept_for then
        kept_for = lives[n]
        px = string.format("%d", math.ceil(kept_for / 1000))
      end
      if not call("SET", keys[first + n], lease, "PX", px, "NX") then
        for before = 1, n - 1 do
          if lives[before] then
            call("UNLINK", keys[first + before])
          end
        end
        return nil
      end
    end
  end
  return lease
end

-- The requests that have a lease, and those that are the same as one before them.
local function known_requests()
  local known, seen = {}, {}
  for n = 1, all do
    local key = keys[first + n]
    known[n] = seen[key] or call("EXISTS", key) > 0
    seen[key] = true
  end
  return known
end

local states = open_states()
if not states then
  return sub(asked, 1, 8) .. (in_terms and "" or "?")
end
local denied, granted
lives, denied, granted, samples = decide(states)
local whole, lasting = pack_states(states, granted == 0)
local after = table.concat(whole)
local lease = write_leases(after)
if not lease then
  -- What has a lease already takes nothing from those behind it.
  local known = known_requests()
  states = open_states()
  lives, denied, granted, samples = decide(states, known)
  whole, lasting = pack_states(states, granted == 0)
  after = table.concat(whole)
  lease = write_leases(after)
end
if granted > 0 then
  save_states(whole, lasting)
else
  samples = nil
end
if granted == 1 and all == 1 then
  reply = lease
else
  local letters, waits = {}, {}
  for n = 1, all do
    local refused = denied and denied[n]
    if refused and call("EXISTS", keys[first + n]) > 0 then
      refused = nil -- a repeat: acquire knows what it was told
    end
    letters[n] = lives[n] and "G" or refused and "D" or "?"
    waits[#waits + 1] = refused or nil
  end
  reply = sub(asked, 1, 8) .. table.concat(letters) .. packed("<d", generation)
    .. table.concat(waits) .. after
end
