-- What first attempts add to the retry budget (lib/pin).
--
-- To write that down costs as much as anything else of an acquire. While the budget holds plenty,
-- one of several first attempts earns for all of them: one whose nonce, which is random, says so.
local SAMPLE, PLENTY = 16, 16

-- The share of a retry that one first attempt earns a budget which holds `spare` more than it would
-- without any first attempt. A call without a nonce always earns.
local function share_earned(share, spare, nonce)
  if not nonce or spare < PLENTY then
    return share
  end
  return nonce % SAMPLE == 0 and SAMPLE * share or 0
end
