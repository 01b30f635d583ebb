-- What blocks of a pool hold at present; changes nothing.
--
-- KEYS    the blocks, a string
-- ARGV    a tag
-- returns the tag, a letter, a body: G blocks that are held, their calls, their tokens

-- @include lib/clock
-- @include lib/layout
-- @include lib/blocks

local live, count, calls, tokens, at = open_blocks(redis.call("GET", KEYS[1]), now_us()), 0, 0, 0, 1
while at <= #live do
  count, calls, tokens = count + 1, calls + live[at + 2], tokens + live[at + 3]
  at = at + HELD_HEAD + 2 * live[at + HELD_LIMITS]
end
return ARGV[1] .. "G" .. struct.pack("<ddd", count, calls, tokens)
