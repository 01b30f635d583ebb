-- Arrays of numbers and their texts (lib/layout).

-- The array behind a text; its last element is a rest of struct.unpack.
local function numbers(text)
  return { struct.unpack(string.rep("<d", #text / 8), text) }
end

local function text_of(list, from, to)
  return struct.pack(string.rep("<d", to - from + 1), unpack(list, from, to))
end
