-- Counts of one pool: how often something has happened, in slots of time that come round.
--
-- The hash has a field `book` and fields "ring:slot:place". The book is msgpack: the tags of
-- the last sixteen reports, then four for each place: level, name, weight, time of the last
-- report. A place is one thing that is counted by itself: the pool (level 1), a model (2), a
-- tenant on a model (3). A field is msgpack, too: the number of the slot since 1970, then
-- pairs of what is counted and how much of it. A slot with another number is over, and empty.
--
-- There are three rings: slots of 5 s for the last minute, of 5 min for the last hour, of 1 h
-- for the last day; one more than that, since the newest is not over.
--
-- A level has so many places and no more. Who is not among them when all are taken gets the
-- place of the lightest if it is twice as heavy; what that had is forgotten here, and stays
-- counted in the level above. A weight halves in an hour.
local TAGS, FIELDS = 16, 4
local RINGS = { { 5000000, 13 }, { 300000000, 13 }, { 3600000000, 25 } }

local function open_book(text)
  local book = text and cmsgpack.unpack(text) or {}
  for i = #book + 1, TAGS do
    book[i] = -1
  end
  return book
end

-- False when a report with that tag was taken before.
local function is_new(book, tag)
  for i = 1, TAGS do
    if book[i] == tag then
      return false
    end
  end
  for i = 1, TAGS - 1 do
    book[i] = book[i + 1]
  end
  book[TAGS] = tag
  return true
end

local function faded(book, at, now)
  return book[at + 2] * 0.5 ^ (math.max(0, now - book[at + 3]) / 3600000000)
end

-- Where every name stands in the book, and how many each level has.
local function index_of(book)
  local known, count = {}, { 0, 0, 0 }
  for at = TAGS + 1, #book, FIELDS do
    known[book[at] .. book[at + 1]] = at
    count[book[at]] = count[book[at]] + 1
  end
  return known, count
end

local function lightest_of(book, level, now)
  local found, least
  for at = TAGS + 1, #book, FIELDS do
    if book[at] == level then
      local weight = faded(book, at, now)
      if not least or weight < least then
        found, least = at, weight
      end
    end
  end
  return found, least
end

local function field_of(ring, slot, at)
  return ring .. ":" .. slot .. ":" .. (at - TAGS - 1) / FIELDS
end

local function forget(key, at)
  local fields = {}
  for ring = 1, #RINGS do
    for slot = 0, RINGS[ring][2] - 1 do
      fields[#fields + 1] = field_of(ring, slot, at)
    end
  end
  redis.call("HDEL", key, unpack(fields))
end

-- Add `news` (pairs from place `from` on) to a slot's counts.
local function add(key, ring, at, now, news, from)
  local number = math.floor(now / RINGS[ring][1])
  local field = field_of(ring, number % RINGS[ring][2], at)
  local text = redis.call("HGET", key, field)
  local old = text and cmsgpack.unpack(text)
  local sums, list = {}, { number }
  if old and old[1] == number then
    for i = 2, #old, 2 do
      sums[old[i]] = old[i + 1]
    end
  end
  for i = from, #news, 2 do
    sums[news[i]] = (sums[news[i]] or 0) + news[i + 1]
  end
  for what, sum in pairs(sums) do
    list[#list + 1] = what
    list[#list + 1] = sum
  end
  redis.call("HSET", key, field, cmsgpack.pack(list))
end
