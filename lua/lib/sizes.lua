-- What is known of the sizes of one kind of calls, in a state that does not grow:
--
--   outputs seen; estimates compared, mean of actual over estimated, mean error after that
--   correction; the tags of the last sixteen reports; the first bin, number of bins, weights
--
-- Bin b holds outputs up to 2^(b/8) tokens that are above 2^((b-1)/8). Every new output lets
-- the older ones weigh a five-hundredth less, so the last thousand or so count.
local OUTPUTS, SAMPLES, RATIO, SPREAD, TAGS, BINS = 1, 2, 3, 4, 4, 22
local TAGS_KEPT, MOST_BINS, PER_OCTAVE = 16, 200, 8
local KEPT_WEIGHT, STEP = 0.998, 0.1
local LEAST_RATIO, MOST_RATIO = 0.1, 10

local function open_sizes(text)
  local head, weights = { 0, 0, 1, 0 }, {}
  if text then
    local s = { struct.unpack(string.rep("<d", #text / 8), text) }
    for i = 1, BINS - 2 do
      head[i] = s[i]
    end
    for i = 1, s[BINS] do
      weights[s[BINS - 1] + i - 1] = s[BINS + i]
    end
  else
    for i = 1, TAGS_KEPT do
      head[TAGS + i] = -1
    end
  end
  return { head = head, weights = weights }
end

-- False when a report with that tag was taken before.
local function take_tag(s, tag)
  for i = TAGS + 1, TAGS + TAGS_KEPT do
    if s.head[i] == tag then
      return false
    end
  end
  for i = TAGS + 1, TAGS + TAGS_KEPT - 1 do
    s.head[i] = s.head[i + 1]
  end
  s.head[TAGS + TAGS_KEPT] = tag
  return true
end

local function bin_of(tokens)
  -- A power of two belongs to the bin that it ends, whatever its logarithm's last bits.
  local bin = tokens <= 1 and 0 or math.ceil(math.log(tokens) / math.log(2) * PER_OCTAVE - 1e-9)
  return math.min(bin, MOST_BINS)
end

-- The newest output comes last and weighs 1; what was there fades at once for all of them.
local function take_outputs(s, outputs)
  local weights, count, weight = s.weights, #outputs, 1
  local faded = KEPT_WEIGHT ^ count
  for bin, old in pairs(weights) do
    weights[bin] = old * faded
  end
  for i = count, 1, -1 do
    local bin = bin_of(outputs[i])
    weights[bin] = (weights[bin] or 0) + weight
    weight = weight * KEPT_WEIGHT
  end
  s.head[OUTPUTS] = s.head[OUTPUTS] + count
end

local function clamped(ratio)
  return math.min(math.max(ratio, LEAST_RATIO), MOST_RATIO)
end

-- As an estimator of the SDK learns for itself (client_sdk/estimate).
local function take_estimate(s, estimated, actual)
  if not (estimated > 0 and actual > 0) then
    return
  end
  local head, seen = s.head, clamped(actual / estimated)
  local n = head[SAMPLES]
  if n > 0 then
    local wrong = math.abs(seen / head[RATIO] - 1)
    head[SPREAD] = head[SPREAD] + math.max(1 / n, STEP) * (wrong - head[SPREAD])
  end
  head[RATIO] = clamped(head[RATIO] + math.max(1 / (n + 1), STEP) * (seen - head[RATIO]))
  head[SAMPLES] = n + 1
end

local function text_of_sizes(s)
  local first, last
  for bin, weight in pairs(s.weights) do
    if weight > 0.01 then
      first, last = math.min(first or bin, bin), math.max(last or bin, bin)
    end
  end
  local numbers, head = {}, s.head
  for i = 1, BINS - 2 do
    numbers[i] = head[i]
  end
  numbers[BINS - 1], numbers[BINS] = first or 0, first and last - first + 1 or 0
  for bin = first or 0, last or -1 do
    numbers[#numbers + 1] = s.weights[bin] or 0
  end
  return struct.pack(string.rep("<d", #numbers), unpack(numbers))
end
