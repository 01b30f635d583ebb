-- The API keys of the fleet, unless they are known already; changes nothing.
--
-- KEYS    the keyring of the fleet, a hash
-- ARGV    a tag; the version that is known
-- returns the tag, G and the server's time; then, when another version is in force, that
--         version, and each field with its value

-- @include lib/clock

local tag, known = ARGV[1], ARGV[2]
local keyring, head = KEYS[1], tag .. "G" .. struct.pack("<d", now_us())
local version = redis.call("HGET", keyring, "version") or ""
if version == known then
  return { head }
end
local answer, fields = { head, version }, redis.call("HGETALL", keyring)
for i = 1, #fields do
  answer[i + 2] = fields[i]
end
return answer
