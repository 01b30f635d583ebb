-- What blocks of a pool hold at present, and whether they may go on holding it; changes nothing.
--
-- KEYS    the blocks, a string; the queue, a string; the pin of the pool, a string; each the
--         circuit of a model, a string
-- ARGV    a tag
-- returns the tag, a letter, a body: G blocks that are held, their calls, their tokens, 1 when
--         somebody waits, then for each circuit 1 when it is calm

-- @include lib/clock
-- @include lib/layout
-- @include lib/numbers
-- @include lib/blocks

-- Circuits and pins say first from when on they are calm (lib/breaker, lib/pin).
local function calm(text, shift_at, wall)
  if not text then
    return true
  end
  local since, shift = struct.unpack("<d", text), struct.unpack("<d", text, shift_at)
  return wall + shift >= since
end

local texts, wall = redis.call("MGET", unpack(KEYS)), now_us()
local live = open_blocks(texts[1], wall)
local count, calls, tokens, at = 0, 0, 0, 1
while at <= #live do
  count, calls, tokens = count + 1, calls + live[at + 2], tokens + live[at + 3]
  at = at + HELD_HEAD + 2 * live[at + HELD_LIMITS]
end
local answer = struct.pack("<dddd", count, calls, tokens, texts[2] and 1 or 0)
local well = calm(texts[3], 9, wall)
for i = 4, #KEYS do
  answer = answer .. struct.pack("<d", well and calm(texts[i], 17, wall) and 1 or 0)
end
return ARGV[1] .. "G" .. answer
