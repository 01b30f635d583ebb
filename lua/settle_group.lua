-- Settle leases of one chain, one or many, in the order in which the reports came: what settle
-- would do for one after another, as far as that is ordinary (lib/ordinary). Whoever called asks
-- settle for the rest.
--
-- KEYS    as for acquire_group
-- ARGV    what the policies say of ordinary calls (lib/ordinary); the reports one behind the
--         other, each as for settle, without readings
-- returns the tag of the first report, alone where nothing is ordinary for some time; then one ?
--         for all, which settle has to take in; or a letter for each, G settled, g the same while
--         somebody waits in this pool, ? for settle, and of those that are settled the leases
--         (lib/lease), which are of one size

-- @include lib/clock
-- @include lib/layout
-- @include lib/lease
-- @include lib/ordinary
-- @include lib/success

local texts, wall, watched = call("MGET", unpack(keys, 1, first + all)), now_us(), nil
local reply, in_terms = {}, false
if gated > 0 then
  local head = call("GETRANGE", circuit, "0", "55")
  watched = watch_calmly(circuit, head, span_of_bucket, texts[first - 1], wall)
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
local letters = string.rep(texts[first] and "g" or "G", #reply) .. string.rep("?", all - #reply)
return sub(asked, 1, 8) .. letters .. table.concat(reply)
