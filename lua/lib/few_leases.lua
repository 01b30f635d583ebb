-- Write the leases of those who are granted, if none has one yet (lib/granted): what is asked,
-- and the states.
local after, epoch, size = state, nil, 8 * (CHARGES + limits)
if scopes > 1 then
  after = table.concat(to_write, "", 1, scopes)
end
if span ~= known_for then
  known_for, expiry = span, string.format("%d", math.ceil(span / 1000))
end
if generation ~= 1 then
  epoch = packed("<d", generation)
end
for n = 1, all do
  local lease = all == 1 and asked or sub(asked, size * (n - 1) + 1, size * n)
  if epoch then
    lease = sub(lease, 1, 8 * EPOCH - 8) .. epoch .. sub(lease, 8 * EPOCH + 1)
  end
  lease = lease .. after
  if not call("SET", keys[first + n], lease, "PX", expiry, "NX") then
    for before = 1, n - 1 do
      call("UNLINK", keys[first + before])
    end
    few = false
    break
  end
  reply = lease
end
if not few then
  reply = nil
elseif all > 1 then
  reply = sub(asked, 1, 8) .. string.rep("G", all) .. packed("<d", generation) .. after
end
