-- The scopes as they would be written, for answers that write nothing.
local function texts_of(states)
  local texts = ""
  for scope = 1, #states do
    local _, _, last = places(states[scope], 0)
    texts = texts .. text_of(states[scope], 1, last)
  end
  return texts
end
