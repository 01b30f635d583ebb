-- Around every script of a trial: decide as ever, then write what was done into the server's log.
--
-- The log, unlike a key, outlives a failover that loses writes, and several servers that share a
-- file write in the order in which things happened. The number comes from the store, so what was
-- lost shows as a number that is given twice.

local journal_at = 0

local function decide()
-- @decide
end

local function hex(text)
  return (string.gsub(text, ".", function(byte)
    return string.format("%02x", string.byte(byte))
  end))
end

local function journal(name, digest, request, reply, numbered)
  local nth = -1
  if numbered then
    nth = redis.call("INCR", string.match(KEYS[1], "^.-{.-}:") .. "journal")
  end
  if journal_at == 0 then -- whoever repeats what is known looks at no clock
    local time = redis.call("TIME")
    journal_at = time[1] * 1000000 + time[2]
  end
  local at = string.format("%.0f", journal_at)
  local words = { "JOURNAL", nth, at, name, digest, hex(request) .. ".", hex(reply) .. "." }
  redis.log(redis.LOG_WARNING, table.concat(words, " "))
end

local function digest_of(key)
  return string.match(key, "l:(%x+)$")
end

-- The head of a lease (lua/lib/lease): all up to its charges.
local function head(text, from)
  return string.sub(text, from, from + 71 + 8 * struct.unpack("<d", text, from + 64))
end

local function note_grant(name, key, answer)
  local letter = string.sub(answer, 9, 9)
  if letter == "G" or letter == "R" then
    local what = letter == "G" and name or "again"
    local reply = string.sub(answer, 1, 9) .. head(answer, 10)
    journal(what, digest_of(key), "", reply, letter == "G")
  end
end

-- That a lease is unknown or over changes nothing, and is said by somebody: perhaps by one who
-- does not know that another is primary now.
local function note_refusal(letter, key)
  if letter == "U" or letter == "X" then
    journal(letter == "U" and "unknown" or "expired", digest_of(key), "", "", false)
  end
end

local function note_report(name, answer, key, request)
  local letter = string.sub(answer, 9, 9)
  note_refusal(letter, key)
  if letter == "G" or letter == "g" or letter == "A" then
    local moved = 8 * struct.unpack("<d", answer, 74)
    local what = letter == "A" and "told again" or name
    local short = string.sub(request, 1, 56 + moved)
    local rest = name == "renew" and head(answer, 10) or string.sub(answer, -moved)
    journal(what, digest_of(key), short, string.sub(answer, 1, 9) .. rest, letter ~= "A")
  end
end

-- Of a call of one chain: what comes before the leases in KEYS, how many there are, the number of
-- limits, and what is asked.
local function group()
  local scopes, limits = struct.unpack("<dd", ARGV[1])
  return scopes + 2, #KEYS - scopes - 3, limits, ARGV[2]
end

-- Of a call of several chains (lua/lib/mixed) the same for each, given to `note` with its answer.
local function for_each_group(answers, note_group)
  local total, _, kinds = struct.unpack("<ddd", ARGV[1])
  local first, at = total + 2, 25
  for n = 1, #answers do
    local kind, all = struct.unpack("<dd", ARGV[1], at)
    local scopes, limits = struct.unpack("<dd", ARGV[1 + kind])
    note_group(answers[n], first, all, limits, ARGV[1 + kinds + n], true)
    first, at = first + all, at + 8 * (3 + scopes)
  end
end

-- Ordinary ones of a chain, one or many in a call (lua/lib/ordinary): each stands in the journal
-- as if it had been alone. A lease is written down as the store has it.
local function note_acquires(answer, first, all, _, _, mixed)
  local letters = string.sub(answer, 9, 8 + all)
  if all == 1 and #answer > 9 and #answer % 8 == 0 then
    letters = "G" -- the lease
  elseif #answer <= 9 then
    letters = ""
  end
  for n = 1, #letters do
    if string.sub(letters, n, n) == "G" then
      local key = KEYS[first + n]
      local what = (mixed or all > 1) and "acquire together" or "acquire"
      local lease = redis.call("GET", key)
      journal(what, digest_of(key), "", string.sub(lease, 1, 8) .. "G" .. head(lease, 1), true)
    end
  end
end

local function note_settles(answer, first, all, limits, asked, mixed)
  local what = (mixed or all > 1) and "settle together" or "settle"
  local size, done = 8 * (7 + limits), string.match(string.sub(answer, 9, 8 + all), "^[Gg]*")
  for n = 1, #done do
    local key, request = KEYS[first + n], string.sub(asked, size * (n - 1) + 1, size * n)
    local reply = string.sub(request, 1, 8) .. string.sub(done, n, n)
    reply = reply .. string.sub(redis.call("GET", key), -8 * limits)
    journal(what, digest_of(key), request, reply, true)
  end
end

local note = {
  acquire = function(answer)
    note_grant("acquire", KEYS[#KEYS - 1], answer)
  end,
  -- A grant that a pass has kept for its caller is fetched: that changes the store, and a grant
  -- that is only told again does not.
  enqueue = function(answer, before)
    local key = KEYS[#KEYS - 7]
    if string.sub(answer, 9, 9) == "R" and not before then
      journal("fetch", digest_of(key), "", string.sub(answer, 1, 9) .. head(answer, 10), true)
    else
      note_grant("acquire", key, answer)
    end
  end,
  charge = function(answer)
    local letter = string.sub(answer, 9, 9)
    if letter == "G" or letter == "R" then
      local reply = string.sub(answer, 1, 9) .. head(answer, 10)
      local what = letter == "G" and "charge" or "again"
      journal(what, digest_of(KEYS[#KEYS]), ARGV[#ARGV], reply, letter == "G")
    end
  end,
  acquire_row = function(answers)
    for n = 1, #answers do
      note_grant("acquire", KEYS[#KEYS - #answers + n], answers[n])
    end
  end,
  settle = function(answer)
    note_report("settle", answer, KEYS[#KEYS - 1], ARGV[#ARGV])
  end,
  settle_row = function(answers)
    for n = 1, #answers do
      local back = n - #answers
      note_report("settle", answers[n], KEYS[#KEYS + back], ARGV[#ARGV + back])
    end
  end,
  acquire_group = function(answer)
    note_acquires(answer, group())
  end,
  acquire_mixed = function(answers)
    for_each_group(answers, note_acquires)
  end,
  settle_group = function(answer)
    note_settles(answer, group())
  end,
  settle_mixed = function(answers)
    for_each_group(answers, note_settles)
  end,
  -- A block, and what has become of it: the amounts that stay charged.
  lend = function(answer)
    note_grant("lend", KEYS[#KEYS - 2], answer)
  end,
  repay = function(answer)
    local letter = string.sub(answer, 9, 9)
    note_refusal(letter, KEYS[#KEYS - 2])
    if letter == "G" or letter == "g" then
      local limits = struct.unpack("<d", answer, 74)
      local request = string.sub(ARGV[#ARGV], 1, 8 * (4 + limits))
      local reply = string.sub(answer, 1, 9) .. head(answer, 10)
      journal("repay", digest_of(KEYS[#KEYS - 2]), request, reply, true)
    end
  end,
  renew = function(answer)
    note_report("renew", answer, KEYS[#KEYS - 1], ARGV[#ARGV])
  end,
  -- What nobody has fetched is taken back; or a caller leaves who has fetched it in this moment.
  cancel = function(answer, before)
    if string.sub(answer, 9, 9) == "R" then
      journal(before and "cancel" or "leave", hex(ARGV[#ARGV]), "", answer, true)
    end
  end,
}
-- @served

-- Whether the lease, or the place in line, is there before.
local before = {
  enqueue = function()
    return redis.call("EXISTS", KEYS[#KEYS - 7]) == 1
  end,
  cancel = function()
    return redis.call("HEXISTS", KEYS[#KEYS], ARGV[#ARGV]) == 1
  end,
}

local was = before["@name"] and before["@name"]()
local answer = decide()
if note["@name"] then
  note["@name"](answer, was)
end
return answer
