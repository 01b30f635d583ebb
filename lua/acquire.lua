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
--         D denied: number of the binding limit, time to wait (-1 never), the scopes
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

local ask, states, wall = numbers(request), {}, now_us()
local worst, wait, refused = survey(texts, states, scopes, ask, CHARGES, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
elseif worst > 0 then
  return tag .. "D" .. struct.pack("<dd", worst, wait) .. texts_of(states)
end

local i = CHARGES
for scope = 1, scopes do
  local s, m = states[scope], #ARGV[scope] / 8 + 1
  local p, at = RECORDS, m + CELLS
  for _ = 1, s[COUNT] do
    i = i + 1
    local window = windows[s[p]]
    if refused and refused[i] then
      ask[i] = -1
    else
      charge(s, p, at, ask[i])
      if window and window.hold then
        window.hold(s, p, s[m], ask[1], ask[TTL])
      end
    end
    p, at = p + (window and window.record or BUCKET_RECORD), at + s[p + 2]
  end
end

if refused then
  request = text_of(ask, 1, i)
end
local lease = save_all(states, wall, request)
redis.call("SET", KEYS[#KEYS], lease, "PX", math.ceil((ask[TTL] + ask[REMEMBER]) / 1000))
return tag .. "G" .. lease
