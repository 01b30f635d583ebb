-- Arrays of numbers and their texts (lib/layout).
local DOUBLES = "<dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

-- How so many numbers are packed.
local function form_of(count)
  return count < #DOUBLES and string.sub(DOUBLES, 1, count + 1) or "<" .. string.rep("d", count)
end

-- The array behind a text; its last element is a rest of struct.unpack.
local function numbers(text)
  return { struct.unpack(form_of(#text / 8), text) }
end

local function text_of(list, from, to)
  return struct.pack(form_of(to - from + 1), unpack(list, from, to))
end

-- A whole number as the store takes it: as text it costs a call less than as a number.
local function digits(number)
  return string.format("%d", number)
end
