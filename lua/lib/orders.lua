-- What operators have ordered of the replicas: msgpack {n: orders by name, t: tags}.
--
-- order  until when it holds (-1: until it is taken back), since when, value, actor, reason
--
-- The tags of the last calls tell a repeat, whose answer was lost, from a new one.
local MOST_TAGS, ORDERS_KEPT = 16, 60000000

local function orders_of(text, now)
  local known = text and cmsgpack.unpack(text) or { n = {}, t = {} }
  for name, order in pairs(known.n) do
    if order[1] >= 0 and order[1] <= now then
      known.n[name] = nil
    end
  end
  return known
end

local function save_orders(key, known, now)
  local till = now
  for _, order in pairs(known.n) do
    till = (till < 0 or order[1] < 0) and -1 or math.max(till, order[1])
  end
  local text = cmsgpack.pack(known)
  if till < 0 then
    redis.call("SET", key, text)
  else
    redis.call("SET", key, text, "PX", math.ceil((till - now + ORDERS_KEPT) / 1000))
  end
end
