-- The blocks of a pool that hold budget which nobody has spent yet: per block the nonce of its
-- lease, the wall time until which it is held, calls, tokens, number of limits, then per limit
-- its number in the pool and how much of it is held. A block that is given back leaves, and one
-- that nobody gives back is seen to be over.
local HELD_UNTIL, HELD_LIMITS, HELD_HEAD = 1, 4, 5

-- Every number of the blocks that are held at `wall`, without that of `nonce`; second, by
-- number of a limit, how much of it they hold. None is held for longer than `longest` from now
-- unless the clock has stepped back since: that is cut short; third, whether any was.
local function open_blocks(text, wall, nonce, longest)
  local all, live, held, cut = text and numbers(text) or {}, {}, {}, false
  local at = 1
  while at + HELD_HEAD <= #all do
    local last = at + HELD_HEAD - 1 + 2 * all[at + HELD_LIMITS]
    if all[at + HELD_UNTIL] > wall and all[at] ~= nonce then
      if longest and all[at + HELD_UNTIL] > wall + longest then
        all[at + HELD_UNTIL], cut = wall + longest, true
      end
      for i = at, last do
        live[#live + 1] = all[i]
      end
      for i = at + HELD_HEAD, last, 2 do
        held[all[i]] = (held[all[i]] or 0) + all[i + 1]
      end
    end
    at = last + 1
  end
  return live, held, cut
end

-- Write them back; they are kept for as long as the last is held. Nothing is kept for a
-- millisecond: a store's user needs no right to delete for it.
local function save_blocks(key, live, wall)
  local longest, at = 0, 1
  while at <= #live do
    longest = math.max(longest, live[at + HELD_UNTIL] - wall)
    at = at + HELD_HEAD + 2 * live[at + HELD_LIMITS]
  end
  local text = #live > 0 and text_of(live, 1, #live) or ""
  redis.call("SET", key, text, "PX", math.max(1, math.ceil(longest / 1000)))
end
