-- What has happened in one pool since an event; changes nothing.
--
-- KEYS    the events of the pool, a stream
-- ARGV    a tag; the id of the last event that is known, or $ for the newest there is; how
--         many at most
-- returns the tag, G, msgpack: the id to go on from, and the events (id, fields)

local stream, after, most = KEYS[1], ARGV[2], ARGV[3]
local last = after
if after == "$" then
  local newest = redis.call("XREVRANGE", stream, "+", "-", "COUNT", 1)
  last = newest[1] and newest[1][1] or "0-0"
  return ARGV[1] .. "G" .. cmsgpack.pack({ last, {} })
end
local found = redis.call("XRANGE", stream, "(" .. after, "+", "COUNT", most)
if #found > 0 then
  last = found[#found][1]
end
return ARGV[1] .. "G" .. cmsgpack.pack({ last, found })
