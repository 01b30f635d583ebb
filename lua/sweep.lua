-- Remove waiters that are out of sight wherever they stand. A pass meets only those that come
-- first: the others would count in every forecast until then.
--
-- KEYS    no scope; the queue as for enqueue
-- ARGV    the head: tag, how long a caller may be out of sight, how many to look at, how many
--         to remove at most, time to keep the queue in milliseconds; the place to go on from,
--         empty for the front
-- returns the tag and a letter G; how many were removed; the place to go on from, empty when
--         all have been looked at

-- @include lib/clock
-- @include lib/layout
-- @include lib/lease
-- @include lib/waiting
-- @include lib/queue

local head, from = all(ARGV[1]), ARGV[2]
local tag, most, keep, wall = string.sub(ARGV[1], 1, 8), head[4], head[5], now_us()
local removed = 0
if redis.call("EXISTS", queue) == 0 then
  return { tag .. "G", struct.pack("<d", 0), "" }
end

local q, in_sight = open_queue(), sight(wall, head[2])
local places = redis.call(
  "ZRANGEBYLEX", order, from == "" and "-" or "(" .. from, "+", "LIMIT", 0, head[3]
)
from = #places == head[3] and places[#places] or ""
for _, place in ipairs(places) do
  local digest = string.sub(place, -DIGEST)
  local t, request, id = open_ticket(digest)
  if not in_sight(t) then
    leave(id, digest, t, request, q, open_model(string.sub(id, 1, 8), q), wall)
    removed = removed + 1
    if removed == most then
      from = place
      break
    end
  end
end
if removed > 0 then
  close_queue(q, keep)
end
return { tag .. "G", struct.pack("<d", removed), from }
