-- Take in what has become of a block: how its calls have ended, what of it comes back.
--
-- KEYS    as for acquire; then the blocks, a string
-- ARGV    the policy of each scope as it is now; that of the breaker; last, the report: tag,
--         nonce of the lease, number of the report, 0 while the block is held, 1 once what was
--         left has been given back, 2 when all of it is over, the amount that stays charged for
--         each limit of the policy; then for calls that have ended alike: class of the outcome
--         (lib/breaker), its kind, Retry-After or 0, how many, whether these were slow
-- returns as settle; R for a report that was taken in before

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
-- @include lib/holding
-- @include lib/blocks

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/earning
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local HELD, RETURNED, HEAD, PART = 0, 1, 4, 5

local texts = redis.call("MGET", unpack(KEYS))
local report, scopes, wall = numbers(ARGV[#ARGV]), #ARGV - 2, now_us()
local tag, place, stage = string.sub(ARGV[#ARGV], 1, 8), #KEYS - 5, report[4]
local lease, why, nth, held = open_lease(texts[#KEYS - 2], report[2], wall)
if not lease then
  return tag .. why
elseif lease[WAITED] % REPORTS >= report[3] then
  return tag .. "R" .. text_of(lease, 1, #lease)
end

local breaker = breaker_of()
local g = breaker.at(place, texts, ARGV[scopes + 1], wall, true)
if g.c then
  slow[g.q[Q_PLACE]] = breaker.slowed(g)
end
if survey(texts, scopes, report, HEAD, wall) == STALE then
  return tag .. "B" .. struct.pack("<d", wall)
end

if stage ~= HELD and texts[#KEYS] then
  save_blocks(KEYS[#KEYS], open_blocks(texts[#KEYS], wall, lease[1]), wall)
end
local i = HEAD
for scope = 1, #states do
  i = i + policies[scope][COUNT]
end
local marks = lease[MARKS]
for at = g.c and i + 1 or #report, #report - PART, PART do
  local taken = breaker.tell(g, {
    class = report[at], kind = report[at + 1], retry_after = report[at + 2],
    calls = report[at + 3], generation = lease[EPOCH], token = report[2], worker = marks % 32,
    slow = report[at + 4] == 1, begun = false, early = false,
  }, report[2] / 2 ^ 52, wall)
  marks = breaker.marks_with_report(g, marks, taken)
end
lease[MARKS], lease[WAITED] = marks, lease[WAITED] - lease[WAITED] % REPORTS + report[3]

if stage <= RETURNED then
  if stage == RETURNED then
    i = HEAD
    each_limit(function(q, p, s, at)
      i = i + 1
      local n = nth[q[p + 1]]
      local charged = n and lease[CHARGES + n]
      if n and charged >= 0 then
        charge(q, p, s, at, report[i] - charged, lease, held[q[p + 1]])
        lease[CHARGES + n] = report[i]
      end
    end)
    save_all("", wall)
  end
  redis.call("SET", KEYS[#KEYS - 2], text_of(lease, 1, #lease), "KEEPTTL")
  return tag .. (texts[#KEYS - 1] and "g" or "G") .. text_of(lease, 1, #lease)
end

settle_lease(lease, nth, held, report, HEAD)
save_all("", wall)
lease[SETTLED] = wall
local text = text_of(lease, 1, #lease)
redis.call("SET", KEYS[#KEYS - 2], text, "PX", math.ceil(lease[REMEMBER] / 1000))
return tag .. (texts[#KEYS - 1] and "g" or "G") .. text
