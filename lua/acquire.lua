-- Take from every limit of the chain, or from none; never past somebody who waits.
--
-- KEYS    the scopes, strings; the slots of their concurrency limits, sorted sets; the
--         circuit of the model, a string; the pin of the pool, a string; the events of the
--         pool, a stream; the lease, a string; the queue, a string
-- ARGV    the policy of each scope; that of the breaker; last, the request as it stands in
--         a lease: nonce, fingerprint, time to live, time to remember, 0, 0, 1, marks,
--         number of limits, the amount for each
-- returns the nonce, a letter, a body:
--         G granted, R repeated: the lease (lib/lease)
--         C conflict: the request id was used with other parameters; nothing
--         D denied: number of the binding limit, time to wait (-1 never), the states
--         P the breaker does not let it pass: why (lib/breaker), time to wait (-1 nobody
--           knows), what the pool is latched by
--         Q somebody waits in this pool: enqueue decides; nothing
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
-- @include lib/granting
-- @include lib/breaker
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
-- @include lib/answer

local texts = redis.call("MGET", unpack(KEYS))
local request, known, scopes = ARGV[#ARGV], texts[#KEYS - 1], #ARGV - 2
local tag = string.sub(request, 1, 8)
if known then
  local same = string.sub(known, 9, 16) == string.sub(request, 9, 16)
  return tag .. (same and "R" .. known or "C")
elseif texts[#KEYS] then
  return tag .. "Q"
end

local ask, wall, place = numbers(request), now_us(), #KEYS - 4
local attempt = attempt_of(ask[MARKS])
local g = gate_at(place, texts, ARGV[scopes + 1], wall)
local why, pause = ask_gate(g, attempt, ask[1] / 2 ^ 52)
if why ~= PASS then
  close_gate(g, wall)
  close_pin(g)
  return tag .. "P" .. struct.pack("<ddd", why, pause, pin[P_LATCH])
end

if g.c then
  slow[g.q[Q_PLACE]] = slowed(g)
end
local worst, wait, refused = survey(texts, scopes, ask, CHARGES, wall)
if worst == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
elseif worst > 0 then
  close_gate(g, wall)
  return tag .. "D" .. struct.pack("<dd", worst, wait) .. texts_of_states()
end

pass_gate(g, ask[1], attempt)
local last = take(scopes, ask, refused)
if refused or g.c or g.generation ~= 1 then
  ask[EPOCH], ask[MARKS] = g.generation, marks_of(g, ask[MARKS])
  request = text_of(ask, 1, last)
end
local lease = save_lease(KEYS[#KEYS - 1], save_all(request, wall), ask)
close_gate(g, wall)
close_pin(g)
return tag .. "G" .. lease
