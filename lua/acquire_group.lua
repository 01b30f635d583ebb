-- Take for calls of one chain, one or many, in the order in which they came, each from every limit
-- or from none: what acquire would do for one after another, as far as that is ordinary
-- (lib/ordinary). Whoever called asks acquire for the rest.
--
-- KEYS    the scopes, strings; the pin of the pool, a string; the queue, a string; for each
--         request the lease, a string; last, the circuit of the model, a string
-- ARGV    what the policies say of ordinary calls (lib/ordinary); the requests one behind the
--         other, each as for acquire
-- returns the nonce of the first request, alone where nothing is ordinary for some time; then one
--         Q for all: somebody waits in this pool, or one ? for all, for acquire; or a letter for
--         each, G granted, D denied, ? for acquire, the generation of the circuit, for each that
--         is denied the number of the binding limit and the time to wait (-1 never), and the
--         states after all of them, which are those of each. A single one that is granted: its
--         lease (lib/lease), which begins with the nonce

-- @include lib/clock
-- @include lib/layout
-- @include lib/lease
-- @include lib/ordinary

local texts = call("MGET", unpack(keys, 1, first))
local pin = texts[first - 1]
if texts[first] then
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
