-- Decide over ordinary acquires of one chain (lib/ordinary), and return what acquire_group does.
if queued then
  local known = call("EXISTS", unpack(keys, first + 1, first + all)) > 0
  return sub(asked, 1, 8) .. (known and "?" or "Q")
end

-- @include lib/gate

local few, samples, reply = scopes > 0, 0, nil
do
  local ahead, span, state, longer = 0, nil, nil, nil
  for scope = 1, scopes do
-- @include lib/few
-- @include lib/few_granted
    if not few then
      break
    end
-- @include lib/few_packed
  end
  if few then
-- @include lib/few_leases
  end
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
