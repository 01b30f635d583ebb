-- Settle ordinary leases of one chain (lib/ordinary), and return what settle_group does.
local watched, busy
if gated > 0 then
  watched = watches and watches[circuit]
  if not watched or watched.span ~= span_of_bucket then
    watched = watch_calmly(call("GETRANGE", circuit, "0", "103"), span_of_bucket, pin, wall)
    if not watched then
      return sub(asked, 1, 8) .. (watched == false and "?" or "")
    end
  end
  busy = watched.workers
end

local few, reply, in_terms = scopes > 0, {}, false
do
  local size, length = 8 * (REPORTED + limits), 8 * (CHARGES + scopes * (CELLS - 1) + 3 * limits)
  local ahead, span, state, longer, settled = 0, nil, nil, nil, {}
  for scope = 1, scopes do
-- @include lib/few
-- @include lib/few_reported
    if not few or #settled == 0 then
      break
    end
-- @include lib/few_packed
  end
  if few and #settled > 0 then
-- @include lib/few_settled
-- @include lib/few_saved
    reply = settled
  end
  for n = 1, not few and known and #settled or 0 do
    known[keys[first + n]] = nil
  end
end

if not few then
-- @include lib/many
-- @include lib/settled
end

if #reply == 0 then
  return sub(asked, 1, 8) .. (in_terms and "" or "?")
elseif watched then
  count_successes(watched, #reply, busy)
  if watches then
    watches[circuit] = watched
  else
    save_successes(circuit, watched)
  end
end
local letter = queued and "g" or "G"
if all == 1 then
  return sub(asked, 1, 8) .. letter .. reply[1]
end
local letters = string.rep(letter, #reply) .. string.rep("?", all - #reply)
return sub(asked, 1, 8) .. letters .. table.concat(reply)
