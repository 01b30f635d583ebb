-- Take from every limit of the chain, or from none.
--
-- KEYS    the scopes, strings; the slots of their concurrency limits, sorted sets;
--         last, the lease, a string
-- ARGV    the policy of each scope; last, the request as it stands in a lease: nonce,
--         fingerprint, time to live, time to remember, 0, number of limits, the
--         amount for each
-- returns the nonce, a letter, a body:
--         G granted, R repeated: the lease (lib/lease)
--         C conflict: the request id was used with other parameters; nothing
--         D denied: number of the binding limit, time to wait (-1 never), the states
--         B boundaries stale: the server's time

-- @include lib/clock
-- @include lib/layout
-- @include lib/bucket
-- @include lib/sliding
-- @include lib/calendar
-- @include lib/concurrency
-- @include lib/scope
-- @include lib/limits
-- @include lib/lease
-- @include lib/answer

local texts = redis.call("MGET", unpack(KEYS))
local request, known, scopes = ARGV[#ARGV], texts[#KEYS], #ARGV - 1
local tag = string.sub(request, 1, 8)
if known then
  local same = string.sub(known, 9, 16) == string.sub(request, 9, 16)
  return tag .. (same and "R" .. known or "C")
end

local ask, wall = numbers(request), now_us()
local worst, wait, refused = survey(texts, scopes, ask, CHARGES, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
elseif worst > 0 then
  return tag .. "D" .. struct.pack("<dd", worst, wait) .. texts_of_states()
end

local i = CHARGES
for scope = 1, scopes do
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

if refused then
  request = text_of(ask, 1, i)
end
local lease = save_all(request, wall)
redis.call("SET", KEYS[#KEYS], lease, "PX", math.ceil((ask[TTL] + ask[REMEMBER]) / 1000))
return tag .. "G" .. lease
