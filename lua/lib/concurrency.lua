-- Concurrency: at most `capacity` live leases, one sorted-set member each.
--
-- A member is the nonce of a lease and its score the deadline, so a lease that is
-- never settled gives its slot back on time without anybody's help.
--
-- record  kind 4, id, capacity, number of its slots in the scope
-- cell    live leases
local function concurrency_window()
  local MINUTE = 60000

  local function start(_, _, s, at)
    s[at] = 0
  end

  -- Until enough of the live leases must have ended at the latest. Who asks for nothing, as a
  -- settle, does not have them counted: nobody reads the cell but after a look.
  local function look(q, p, s, at, amount, now)
    if amount < 0 then
      return 0
    end
    local capacity, slots, after = q[p + 2], KEYS[q[SLOTS] + q[p + 3]], "(" .. digits(now)
    local live = redis.call("ZCOUNT", slots, after, "+inf")
    s[at] = live
    local over = live + amount - capacity
    if over <= 0 then
      return 0
    elseif amount > capacity then
      return NEVER
    end
    local first = { "LIMIT", over - 1, 1 }
    local last = redis.call("ZRANGEBYSCORE", slots, after, "+inf", "WITHSCORES", unpack(first))
    return last[2] - now
  end

  -- A slot is held or released (below), never by halves.
  local function charge(s, at, amount)
    if amount > 0 then
      s[at] = s[at] + amount
    end
    return 0
  end

  -- Slots come back with their leases, not with time.
  local function keep()
    return 0
  end

  -- Take a slot, or move the deadline of one that is held already. Once a minute slots of the past
  -- are swept out, and all are kept for longer.
  local function hold(q, p, now, member, life)
    local slots, expiry = KEYS[q[SLOTS] + q[p + 3]], math.ceil(life / 1000) + MINUTE
    local due = redis.call("PTTL", slots) < expiry
    if due then
      redis.call("ZREMRANGEBYSCORE", slots, "-inf", digits(now))
    end
    redis.call("ZADD", slots, digits(now + life), digits(member))
    if due then
      redis.call("PEXPIRE", slots, digits(expiry + MINUTE))
    end
  end

  local function release(q, p, s, at, member)
    s[at] = s[at] - redis.call("ZREM", KEYS[q[SLOTS] + q[p + 3]], digits(member))
  end

  return {
    record = 4,
    cell = 1,
    start = start,
    look = look,
    charge = charge,
    keep = keep,
    hold = hold,
    release = release,
  }
end
