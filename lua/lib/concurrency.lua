-- Concurrency: at most `capacity` live leases, one sorted-set member each.
--
-- A member is the nonce of a lease and its score the deadline, so a lease that is
-- never settled gives its slot back on time without anybody's help.
--
-- record  kind 4, id, capacity, number of its slots in the scope
-- cell    live leases
local function concurrency_window()
  local function start(_, _, s, at)
    s[at] = 0
  end

  -- Until enough of the live leases must have ended at the latest.
  local function look(q, p, s, at, amount, now)
    local capacity, slots, after = q[p + 2], KEYS[q[SLOTS] + q[p + 3]], string.format("(%.0f", now)
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

  -- Take a slot, or move the deadline of one that is held already.
  local function hold(q, p, now, member, life)
    local slots = KEYS[q[SLOTS] + q[p + 3]]
    redis.call("ZREMRANGEBYSCORE", slots, "-inf", now)
    redis.call("ZADD", slots, now + life, member)
    local expiry = math.ceil(life / 1000) + 60000
    if redis.call("PTTL", slots) < expiry then
      redis.call("PEXPIRE", slots, expiry)
    end
  end

  local function release(q, p, s, at, member)
    s[at] = s[at] - redis.call("ZREM", KEYS[q[SLOTS] + q[p + 3]], member)
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
