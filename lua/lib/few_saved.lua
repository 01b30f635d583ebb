-- Write the state (lib/many).
local behind = sub(texts[place], #state + 1) -- what is set aside, and what is learned
local whole = behind == "" and state or state .. behind
if longer then
  call("SET", keys[place], whole, "PX", math.ceil(needed / 500) + 1000)
else
  call("SET", keys[place], whole, "KEEPTTL")
end
texts[place] = whole
