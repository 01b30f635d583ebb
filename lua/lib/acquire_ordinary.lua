-- Decide over ordinary acquires of one chain (lib/ordinary), and return what acquire_group does.
if queued then
  local known = call("EXISTS", unpack(keys, first + 1, first + all)) > 0
  return sub(asked, 1, 8) .. (known and "?" or "Q")
end

-- @include lib/gate
-- @include lib/few
-- @include lib/few_granted

if few then
-- @include lib/few_packed
-- @include lib/few_leases
  if few then
-- @include lib/few_saved
  end
end

local lives, in_terms
if not few then
-- @include lib/many
-- @include lib/granted
end

if samples and ratio > 0 and (samples > 0 or balance - most < PLENTY) then
-- @include lib/earning
-- @include lib/earned
end
return reply
