-- Charge many calls of one size at once, for a caller that hands them out itself: as many as
-- blocks may hold and every limit has room for, or none. Never while somebody waits, nor while
-- the circuit is anything but calm.
--
-- KEYS    as for acquire; then the blocks, a string
-- ARGV    the policy of each scope; that of the breaker; the request as for acquire, with the
--         amounts of one call; last, the terms: calls that are asked for, fewest that make a
--         block, for how long they may be held, tokens of one call, then for each limit its
--         number in the pool, and how much of it all blocks may hold (-1: it is not asked)
-- returns the nonce, a letter, a body:
--         G lent, R repeated: the lease (lib/lease)
--         C conflict: the request id was used with other parameters; nothing
--         D denied: as for acquire
--         P the circuit is not calm, Q somebody waits in this pool, F blocks hold as much as
--           they may: nothing
--         B boundaries stale: the server's time

-- @include lib/clock
-- @include lib/layout
-- @include lib/numbers
-- @include lib/bucket
-- @include lib/sliding
-- @include lib/calendar
-- @include lib/concurrency
-- @include lib/ramp
-- @include lib/windows
-- @include lib/learned
-- @include lib/scope
-- @include lib/limits
-- @include lib/lease
-- @include lib/granting
-- @include lib/answer
-- @include lib/earning
-- @include lib/calm
-- @include lib/blocks

-- Only for the names in it: a circuit that is not calm lends nothing.
local function breaker_of()
-- @include lib/breaker
end

-- What a script can take apart at once, with room to spare.
local MOST_HELD = 3000

local texts = redis.call("MGET", unpack(KEYS))
local request, terms, scopes = ARGV[#ARGV - 1], numbers(ARGV[#ARGV]), #ARGV - 3
local known, tag = texts[#KEYS - 2], string.sub(request, 1, 8)
if known then
  local same = string.sub(known, 9, 16) == string.sub(request, 9, 16)
  return tag .. (same and "R" .. known or "C")
elseif texts[#KEYS - 1] then
  return tag .. "Q"
end

local ask, wall, place, policy = numbers(request), now_us(), #KEYS - 5, ARGV[scopes + 1]
local live, held, cut = open_blocks(texts[#KEYS], wall, nil, terms[3])
if cut then
  save_blocks(KEYS[#KEYS], live, wall)
end
local calls, last = terms[1], CHARGES + ask[LIMITS]
for n = 1, ask[LIMITS] do
  local amount, name, most = ask[CHARGES + n], terms[3 + 2 * n], terms[4 + 2 * n]
  if most >= 0 and amount > 0 then
    calls = math.min(calls, math.floor((most - (held[name] or 0)) / amount))
  end
end
if calls < terms[2] or #live > MOST_HELD then
  return tag .. "F"
end
for i = CHARGES + 1, last do
  ask[i] = ask[i] * calls
end

local generation, earned, life = 1, nil, nil
if policy ~= "" then
  generation, earned, life = pass_calmly(policy, texts[place], texts[place + 1], wall)
  if not generation then
    return tag .. "P"
  end
end
local worst, wait, refused = survey(texts, scopes, ask, CHARGES, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
elseif worst > 0 then
  begin_anew(wall)
  return tag .. "D" .. struct.pack("<dd", worst, wait) .. texts_of_states()
end

if earned then
  -- Each of the calls is a first attempt, and allows its share of a retry.
  local ratio, balance = struct.unpack("<d", policy, 9), struct.unpack("<d", earned, 25)
  balance = struct.pack("<d", balance + (calls - 1) * ratio)
  earned = string.sub(earned, 1, 24) .. balance .. string.sub(earned, 33)
  redis.call("SET", KEYS[place + 1], earned, "PX", math.ceil(life / 1000))
end
take(scopes, ask, refused)
ask[EPOCH], ask[WAITED] = generation, calls * REPORTS
local lease = save_lease(KEYS[#KEYS - 2], save_all(text_of(ask, 1, last), wall), ask)

live[#live + 1], live[#live + 2] = ask[1], wall + terms[3]
live[#live + 1], live[#live + 2], live[#live + 3] = calls, calls * terms[4], ask[LIMITS]
for n = 1, ask[LIMITS] do
  live[#live + 1], live[#live + 2] = terms[3 + 2 * n], math.max(0, ask[CHARGES + n])
end
save_blocks(KEYS[#KEYS], live, wall)
return tag .. "G" .. lease
