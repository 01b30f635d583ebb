-- What was counted in a pool in the newest slots of one ring; changes nothing.
--
-- KEYS    the counts, a hash
-- ARGV    one text: tag, which ring, how many slots of it, the first place, how many places
--         (lib/counts)
-- returns a list: the tag, G, the server's time, the width of a slot; the book; the slots of
--         each place in turn, nil where there is none

-- @include lib/clock
-- @include lib/counts

local _, ring, wanted, from, many = struct.unpack("<ddddd", ARGV[1])
local now, width, slots = now_us(), RINGS[ring][1], RINGS[ring][2]
local head = string.sub(ARGV[1], 1, 8) .. "G" .. struct.pack("<dd", now, width)
local text = redis.call("HGET", KEYS[1], "book")
if not text then
  return { head, "", {} }
end

local book, newest = open_book(text), math.floor(now / width)
local found = {}
local first = TAGS + 1 + FIELDS * from
for at = first, math.min(#book, first + FIELDS * many - 1), FIELDS do
  local fields = {}
  for number = newest - wanted + 1, newest do
    fields[#fields + 1] = field_of(ring, number % slots, at)
  end
  for _, slot in ipairs(redis.call("HMGET", KEYS[1], unpack(fields))) do
    found[#found + 1] = slot
  end
end
return { head, text, found }
