-- Add to the counts of a pool what a replica has counted since it last told.
--
-- KEYS    the counts, a hash
-- ARGV[1] tag, how long to keep the counts (ms), the most places of each level, the first and the
--         last ring to count in (lib/counts)
-- ARGV[2] msgpack: a list for each that is counted: level, name, how heavy it is, then pairs
-- returns the tag, G
--
-- A repeat, known by its tag, changes nothing.

-- @include lib/clock
-- @include lib/counts

local head = { struct.unpack("<ddddddd", ARGV[1]) }
local tag, now = string.sub(ARGV[1], 1, 8), now_us()
local book = open_book(redis.call("HGET", KEYS[1], "book"))
if not is_new(book, head[1]) then
  return tag .. "G"
end

local known, count = index_of(book)
local lightest, least = {}, {}
for _, news in ipairs(cmsgpack.unpack(ARGV[2])) do
  local level, name, claim = news[1], news[2], news[3]
  local at = known[level .. name]
  if not at and count[level] < head[2 + level] then
    at = #book + 1
    count[level] = count[level] + 1
  elseif not at then
    if not lightest[level] then
      lightest[level], least[level] = lightest_of(book, level, now)
    end
    if lightest[level] and claim > 2 * least[level] then
      at = lightest[level]
      lightest[level] = nil
      known[level .. book[at + 1]] = nil
      forget(KEYS[1], at)
    end
  end
  if at then
    if known[level .. name] then
      book[at + 2] = math.max(claim, faded(book, at, now))
    else
      book[at], book[at + 1], book[at + 2] = level, name, claim
      known[level .. name] = at
    end
    book[at + 3] = now
    for ring = head[6], head[7] do
      add(KEYS[1], ring, at, now, news, 4)
    end
  end
end
redis.call("HSET", KEYS[1], "book", cmsgpack.pack(book))
redis.call("PEXPIRE", KEYS[1], math.ceil(head[2]))
return tag .. "G"
