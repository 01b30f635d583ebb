-- Settle ordinary leases of one chain (lib/ordinary), and return what settle_group does.
local reply, in_terms, watched = {}, false, nil
if gated > 0 then
  local head = call("GETRANGE", circuit, "0", "55")
  watched = watch_calmly(circuit, head, span_of_bucket, pin, wall)
  if not watched then
    return sub(asked, 1, 8) .. (watched == false and "?" or "")
  end
end

-- @include lib/few

if few then
-- @include lib/few_settled
  if #settled > 0 then
-- @include lib/few_packed
-- @include lib/few_saved
  end
  reply = settled
else
-- @include lib/many
-- @include lib/settled
end
if #reply == 0 then
  return sub(asked, 1, 8) .. (in_terms and "" or "?")
elseif watched then
  save_successes(circuit, watched)
end
local letters = string.rep(queued and "g" or "G", #reply) .. string.rep("?", all - #reply)
return sub(asked, 1, 8) .. letters .. table.concat(reply)
