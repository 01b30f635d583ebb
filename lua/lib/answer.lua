-- The scopes as they would be written, for answers that write nothing.
local function texts_of_states()
  local texts = ""
  for scope = 1, #states do
    texts = texts .. text_of(states[scope], 1, note_cells(states[scope], 0, {}))
  end
  return texts
end
