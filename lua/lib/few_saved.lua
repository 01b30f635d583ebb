-- Write the states (lib/many).
for scope = 1, scopes do
  if scopes > 1 then
    place, state, longer = places[scope], to_write[scope], to_keep[scope]
  end
  local behind = sub(texts[place], #state + 1) -- what is set aside, and what is learned
  local whole = behind == "" and state or state .. behind
  if longer then
    call("SET", keys[place], whole, "PX", longer)
  else
    call("SET", keys[place], whole, "KEEPTTL")
  end
  texts[place] = whole
end
