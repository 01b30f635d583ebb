-- Every line of a pool's queue; changes nothing.
--
-- KEYS    no scope; the queue as for enqueue
-- ARGV    a tag
-- returns the tag and a letter G; the server's time, waiters; the lines: id, its record, when
--         its head began to wait, the names of the head's resource and tenant

-- @include lib/clock
-- @include lib/layout
-- @include lib/numbers
-- @include lib/lease
-- @include lib/waiting

local MOST = 1000
local tag, lines = string.sub(ARGV[1], 1, 8), {}
local q = open_queue()
for _, source in ipairs({ front, asleep }) do
  for _, member in ipairs(redis.call("ZRANGE", source, 0, MOST - 1)) do
    local id = source == front and read_seat(member) or member
    local line, first = open_line(id), head_of(id)
    if line and first then
      local t, _, _, names = open_ticket(string.sub(first, -DIGEST))
      local record = text_of(line, 1, #line)
      lines[#lines + 1] = { id, record, struct.pack("<d", t[BEGAN]), names }
    end
  end
end
return { tag .. "G", struct.pack("<dd", now_us(), q[WAITERS]), lines }
