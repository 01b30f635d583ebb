-- Charge what was surveyed.

-- Charge every limit of `scopes` (a number: the first so many; or a list of them) what
-- `ask` says from its place CHARGES + 1 on, and take their slots. Limits in `refused` are
-- shadows without room: they get -1 in the place of a charge.
local function take(scopes, ask, refused)
  local listed = type(scopes) == "table" and scopes
  local i = CHARGES
  for n = 1, listed and #listed or scopes do
    local scope = listed and listed[n] or n
    local q, s, p, at = policies[scope], states[scope], RECORDS, CELLS + 1
    for _ = 1, q[COUNT] do
      i = i + 1
      local window = windows[q[p]]
      if refused and refused[i] then
        ask[i] = -1
      else
        charge(q, p, s, at, ask[i])
        if window and window.hold then
          window.hold(q, p, s[TIME], ask[1], ask[TTL])
        end
      end
      p = p + (window and window.record or BUCKET_RECORD)
      at = at + (window and window.cell or BUCKET_CELL) + 1
    end
  end
  return i
end

-- Write a lease under `key` and return it.
local function save_lease(key, lease, ask)
  redis.call("SET", key, lease, "PX", digits(math.ceil((ask[TTL] + ask[REMEMBER]) / 1000)))
  return lease
end
