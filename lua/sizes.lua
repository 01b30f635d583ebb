-- Take in how large calls of one kind were, and answer what is known of them.
--
-- KEYS    the sizes, a string
-- ARGV    one text: tag, how long to keep the state (ms), then three numbers for each call:
--         its output tokens or -1, what its input was estimated at or 0, what it had
-- returns the tag, G, the state (lib/sizes); no state where nothing is known
--
-- A repeat, known by its tag, changes nothing.

-- @include lib/sizes

local news = { struct.unpack(string.rep("<d", #ARGV[1] / 8), ARGV[1]) }
local tag, text = string.sub(ARGV[1], 1, 8), redis.call("GET", KEYS[1])
local count = math.floor((#news - 3) / 3)
if count < 1 then
  return tag .. "G" .. (text or "")
end

local s = open_sizes(text)
if not take_tag(s, news[1]) then
  return tag .. "G" .. text
end
local outputs = {}
for i = 3, 3 * count, 3 do
  if news[i] >= 0 then
    outputs[#outputs + 1] = news[i]
  end
  take_estimate(s, news[i + 1], news[i + 2])
end
take_outputs(s, outputs)
text = text_of_sizes(s)
-- Labels are the callers' choice: one that hardly anybody uses is soon forgotten.
local known = s.head[OUTPUTS] + s.head[SAMPLES] >= 10
redis.call("SET", KEYS[1], text, "PX", math.ceil(known and news[2] or news[2] / 100))
return tag .. "G" .. text
