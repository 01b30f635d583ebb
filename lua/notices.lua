-- Who holds limits by hand, and why; changes nothing.
--
-- KEYS    each the notice of who holds a limit, a string
-- ARGV    a tag
-- returns the tag and G; then the notices, empty where there is none

local answer = { ARGV[1] .. "G" }
for i, notice in ipairs(redis.call("MGET", unpack(KEYS))) do
  answer[i + 1] = notice or ""
end
return answer
