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
-- @include lib/numbers
-- @include lib/lease
-- @include lib/waiting
-- @include lib/queue

-- What is read before any of it is looked at: where many are removed, the rest of a part is
-- read for nothing.
local PART = 100

local head, from = all(ARGV[1]), ARGV[2]
local tag, most, keep, wall = string.sub(ARGV[1], 1, 8), head[4], head[5], now_us()
local left, removed = head[3], 0
if redis.call("EXISTS", queue) == 0 then
  return { tag .. "G", struct.pack("<d", 0), "" }
end

local q, in_sight = open_queue(), sight(wall, head[2])

local function remove(digest)
  local t, request, id = open_ticket(digest)
  leave(id, digest, t, request, q, open_model(string.sub(id, 1, 8), q), wall)
  removed = removed + 1
end

-- Go on from `from`, and say where the next part begins; empty when this was the last.
local function look(count)
  local places = redis.call(
    "ZRANGEBYLEX", order, from == "" and "-" or "(" .. from, "+", "LIMIT", 0, count
  )
  local digests = {}
  for i, place in ipairs(places) do
    digests[i] = string.sub(place, -DIGEST)
  end
  local texts, glance = #places > 0 and redis.call("HMGET", tickets, unpack(digests)) or {}, {}
  for i, place in ipairs(places) do
    glance[SEEN], glance[HOLDER] = struct.unpack("<dd", texts[i], 8 * SEEN - 7)
    if not in_sight(glance) then
      remove(digests[i])
      if removed == most then
        return place
      end
    end
  end
  return #places == count and places[count] or ""
end

repeat
  local count = math.min(left, PART)
  from, left = look(count), left - count
until from == "" or left == 0 or removed == most
if removed > 0 then
  close_queue(q, keep)
end
return { tag .. "G", struct.pack("<d", removed), from }
