-- Concurrency: at most `capacity` live leases, one sorted-set member each.
--
-- A member is the nonce of a lease and its score the deadline, so a lease that is
-- never settled gives its slot back on time without anybody's help.
--
-- record  kind 4, id, size, capacity, place of the slots in KEYS
-- cell    live leases
local function concurrency_window()
  local function start(s, _, at)
    s[at] = 0
  end

  -- Until enough of the live leases must have ended at the latest.
  local function look(s, p, at, amount, now)
    local slots, after = KEYS[s[p + 4]], string.format("(%.0f", now)
    local live = redis.call("ZCOUNT", slots, after, "+inf")
    s[at] = live
    local over = live + amount - s[p + 3]
    if over <= 0 then
      return 0
    elseif amount > s[p + 3] then
      return NEVER
    end
    local first = { "LIMIT", over - 1, 1 }
    local last = redis.call("ZRANGEBYSCORE", slots, after, "+inf", "WITHSCORES", unpack(first))
    return last[2] - now
  end

  -- A slot is held or released (below), never by halves.
  local function charge(s, _, at, amount)
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
  local function hold(s, p, now, member, life)
    local slots = KEYS[s[p + 4]]
    redis.call("ZREMRANGEBYSCORE", slots, "-inf", now)
    redis.call("ZADD", slots, now + life, member)
    local expiry = math.ceil(life / 1000) + 60000
    if redis.call("PTTL", slots) < expiry then
      redis.call("PEXPIRE", slots, expiry)
    end
  end

  local function release(s, p, at, member)
    s[at] = s[at] - redis.call("ZREM", KEYS[s[p + 4]], member)
  end

  return {
    record = 5,
    start = start,
    look = look,
    charge = charge,
    keep = keep,
    hold = hold,
    release = release,
  }
end
