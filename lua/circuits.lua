-- Circuits of one pool as they are stored; changes nothing.
--
-- KEYS    the pin of the pool, a string; each the circuit of a resource, a string, and
--         the note of who holds it, a string
-- ARGV    a tag
-- returns the tag, G: the server's time, the length of each text or -1; the texts

-- @include lib/clock

local lengths, texts = { now_us() }, redis.call("MGET", unpack(KEYS))
for i = 1, #KEYS do
  lengths[i + 1] = texts[i] and #texts[i] or -1
  texts[i] = texts[i] or ""
end
local head = struct.pack(string.rep("<d", #lengths), unpack(lengths))
return ARGV[1] .. "G" .. head .. table.concat(texts)
