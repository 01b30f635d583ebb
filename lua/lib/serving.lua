-- One pass over the queue (lib/queue for the order).
--
-- A waiter that is short of a limit closes it for everybody behind it in the pass, so that
-- it accumulates and smaller ones cannot starve it. It closes only the limits of the
-- narrowest scope that lacks room: what it cannot use yet is not kept from others. A line
-- whose head is short of a limit of its own tenant sleeps and closes nothing shared; once
-- it has slept, its tenant's limits stay closed behind it until it is served, since
-- otherwise its tenant's other models could take them each time the model has room.

local MOST_VISITS, MOST_MISSING, MOST_WOKEN = 512, 32, 128

local function serve(breaker, q, chains, wall, most, grace, patience, room_again)
  local pass = { q = q, granted = 0, due = -1, more = false, missing = {}, again = {} }
  pass.said, pass.paused = "", ""
  local models, fronts, closed, touched, skipped = {}, {}, {}, {}, {}
  local in_sight = sight(wall, grace)

  local function model_of(id)
    local model = string.sub(id, 1, 8)
    models[model] = models[model] or open_model(model, q)
    return models[model], model
  end

  local function sooner(due)
    if pass.due < 0 or due < pass.due then
      pass.due = math.max(0, due)
    end
  end

  -- Tell the replica that holds the caller of a request to ask again.
  local function tell(digest, holder)
    pass.again[holder] = pass.again[holder] or {}
    table.insert(pass.again[holder], digest)
    pass.said = pass.said .. struct.pack("<d", holder) .. digest
  end

  local function look_again(model)
    local seat = next_seat(model)
    while seat and skipped[read_seat(seat)] do
      seat = next_seat(model, seat)
    end
    fronts[model] = nil
    if seat then
      local id, rank, tag = read_seat(seat)
      local turn = model_of(id)[BEHIND_POOL] + tag
      fronts[model] = { id = id, rank = rank, turn = turn, seat = seat, model = model }
    end
  end

  -- Leave a line as it is for the rest of the pass.
  local function skip(c)
    skipped[c.id] = true
    return look_again(c.model)
  end

  local function first()
    local best
    for _, c in pairs(fronts) do
      if not best or c.rank < best.rank or c.rank == best.rank
        and (c.turn < best.turn or c.turn == best.turn and c.model < best.model) then
        best = c
      end
    end
    return best
  end

  local function close(scope, id, turn)
    closed[scope] = closed[scope] or {}
    table.insert(closed[scope], id)
    table.insert(closed[scope], turn)
  end

  -- Whether the request has room in its whole chain: true and the shadows that have none;
  -- otherwise false and, when its line should sleep, until when.
  local function consider(c, chain, t, ask)
    local from, refused, due, private = { CHARGES }, {}, nil, false
    for k, scope in ipairs(chain.scopes) do
      from[k + 1] = from[k] + policies[scope][COUNT]
    end
    for k = #chain.scopes, 1, -1 do
      local scope, level = chain.scopes[k], chain.levels[k]
      if level < 3 and due then
        break
      end
      local short, wait = shortage(scope, ask, from[k], wall, refused)
      if wait == NEVER then
        return nil
      end
      local shut = closed[scope]
      local behind = shut and needs_closed(scope, ask, from[k], shut, 1, math.huge)
      if short then
        for _, id in ipairs(short) do
          close(scope, id, c.rank == 0 and -1 or c.turn)
        end
      end
      if level == 3 then
        if short then
          due = math.max(due or 0, wall + wait)
        end
        private = private or behind
      elseif short or behind then
        if short then
          sooner(wait)
        end
        if t[PATIENT] == 1 then
          for n = k + 1, #chain.scopes do
            local p = RECORDS
            for _ = 1, chain.levels[n] == 3 and policies[chain.scopes[n]][COUNT] or 0 do
              close(chain.scopes[n], policies[chain.scopes[n]][p + 1], c.turn)
              p = p + window_of(policies[chain.scopes[n]][p]).record
            end
          end
        end
        return false, nil, false
      end
    end
    if due or private then
      return false, due, private
    end
    return true, next(refused) and refused
  end

  local function grant(c, chain, digest, t, request, names, refused)
    local m, model = model_of(c.id)
    local ask = numbers(request)
    breaker.pass(chain.gate, ask[1], math.floor(ask[MARKS] / 512) % 2 + 1)
    local last = take(chain.scopes, ask, refused)
    ask[WAITED] = wall - t[BEGAN]
    ask[EPOCH], ask[MARKS] = chain.gate.generation, breaker.marks(chain.gate, ask[MARKS])
    local lease = text_of(ask, 1, last)
    for _, scope in ipairs(chain.scopes) do
      lease, touched[scope] = lease .. text_of(states[scope], 1, ends[scope]), true
    end
    spend_credit(model, t, wall)
    leave(c.id, digest, t, request, q, m, wall, true)
    local holder = struct.pack("<d", t[HOLDER])
    local ticket = struct.pack("<d", 1) .. holder .. struct.pack("<d", #names) .. names .. lease
    redis.call("HSET", tickets, digest, ticket)
    redis.call("ZADD", grants, wall + patience, digest .. holder)
    if c.rank == 1 then
      m[MODEL_VIRTUAL] = math.max(m[MODEL_VIRTUAL], c.turn - m[BEHIND_POOL])
      q[VIRTUAL] = math.max(q[VIRTUAL], c.turn)
    end
    pass.granted = pass.granted + 1
    tell(digest, t[HOLDER])
  end

  -- The chains of the lines that come next, for the service to bring along.
  local function note_missing(c)
    local seen, seat = {}, c.seat
    for _ = 1, MOST_MISSING do
      local id = read_seat(seat)
      if not chains[string.sub(id, 1, 16)] and not seen[string.sub(id, 1, 16)] then
        seen[string.sub(id, 1, 16)] = true
        local _, _, _, names = open_ticket(string.sub(head_of(id), -DIGEST))
        table.insert(pass.missing, names)
      end
      seat = next_seat(c.model, seat)
      if not seat then
        return
      end
    end
  end

  local function visit(c)
    local chain = chains[string.sub(c.id, 1, 16)]
    local digest = string.sub(head_of(c.id), -DIGEST)
    local t, request, _, names = open_ticket(digest)
    local m = model_of(c.id)
    if not in_sight(t) or wall >= t[DEADLINE] then
      leave(c.id, digest, t, request, q, m, wall)
      if wall - t[SEEN] <= grace then
        -- Its caller may ask again, and is told that its time is over.
        t[STATE] = 2
        save_ticket(digest, t, request, c.id, names)
        redis.call("ZADD", grants, wall + patience, digest .. struct.pack("<d", t[HOLDER]))
      end
      tell(digest, t[HOLDER])
      return look_again(c.model)
    elseif not chain then
      note_missing(c)
      return false
    elseif chain.shape ~= t[SHAPE] then
      -- It waits by another policy: its caller brings it up to date.
      tell(digest, t[HOLDER])
      return skip(c)
    end
    -- A model whose circuit is open waits as a whole; who cannot wait that long is told.
    local why, pause = breaker.ask(chain.gate, 1, struct.unpack("<d", request) / 2 ^ 52)
    if why ~= PASS then
      if pause < 0 or wall + pause > t[DEADLINE] then
        leave(c.id, digest, t, request, q, m, wall)
        tell(digest, t[HOLDER])
        return look_again(c.model)
      end
      sooner(pause)
      pass.paused = pass.paused .. c.model .. struct.pack("<d", pause)
      fronts[c.model] = nil
      return true
    end
    local fits, more, private = consider(c, chain, t, numbers(request))
    if fits then
      grant(c, chain, digest, t, request, names, more)
      return look_again(c.model)
    elseif fits == nil then
      leave(c.id, digest, t, request, q, m, wall)
      tell(digest, t[HOLDER])
      return look_again(c.model)
    elseif more then
      t[PATIENT] = 1
      save_ticket(digest, t, request, c.id, names)
      put_to_sleep(c.id, open_line(c.id), more)
      return look_again(c.model)
    elseif private then
      return skip(c)
    end
    fronts[c.model] = nil
    return true
  end

  -- A tenant's lines wake together, so that they are looked at in their order.
  local function wake_tenant(tenant)
    local ids = redis.call("HGET", book, "z" .. tenant) or ""
    for i = 1, #ids, ID do
      local id = string.sub(ids, i, i + ID - 1)
      wake(id, (model_of(id)))
    end
  end

  for i = 1, #room_again, 8 do
    wake_tenant(string.sub(room_again, i, i + 7))
  end
  local due = redis.call("ZRANGEBYSCORE", asleep, "-inf", wall, "LIMIT", 0, MOST_WOKEN)
  for _, id in ipairs(due) do
    wake_tenant(string.sub(id, 9, 16))
  end

  local seat = redis.call("ZRANGEBYLEX", front, "-", "+", "LIMIT", 0, 1)[1]
  while seat do
    local model = string.sub(seat, 1, 8)
    look_again(model)
    seat = redis.call("ZRANGEBYLEX", front, "(" .. model .. top, "+", "LIMIT", 0, 1)[1]
  end

  -- A model of which everybody sleeps: nobody has closed anything of it.
  local function reopen(model)
    local text = redis.call("HGET", book, "m" .. model)
    if text and #text > 16 then
      redis.call("HSET", book, "m" .. model, string.sub(text, 1, 16))
    end
  end

  local whole = false
  for _ = 1, MOST_VISITS do
    local c = first()
    whole = c == nil
    if whole or pass.granted >= most or visit(c) == false then
      break
    end
  end
  pass.more = not whole

  for scope in pairs(touched) do
    save(scope, wall)
  end
  for model, m in pairs(models) do
    if whole then
      m = { m[MODEL_VIRTUAL], m[BEHIND_POOL] }
      models[model] = m
    end
  end
  if whole then
    q = { q[WAITERS], q[SEQUENCE], q[VIRTUAL] }
    pass.q = q
    for id16, chain in pairs(chains) do
      local model = string.sub(id16, 1, 8)
      local m = models[model] or reopen(model)
      for k, scope in ipairs(chain.scopes) do
        local into = chain.levels[k] == 1 and q or chain.levels[k] == 2 and m
        if into and closed[scope] then
          for _, number in ipairs(closed[scope]) do
            into[#into + 1] = number
          end
          closed[scope] = nil
        end
      end
    end
  end
  for model, m in pairs(models) do
    save_model(model, m)
  end
  local sleeper = redis.call("ZRANGE", asleep, 0, 0, "WITHSCORES")
  if sleeper[2] then
    sooner(tonumber(sleeper[2]) - wall)
  end
  return pass
end
