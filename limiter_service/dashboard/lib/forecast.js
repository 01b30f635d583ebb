// When a limit is exhausted or full again, at the pace of the last half minute. Pure.

const LEAST_SAMPLES = 5;
const FARTHEST = 3600; // seconds: beyond that a pace of half a minute says nothing

/** Units per second by which *samples* of [seconds, remaining] move; null while there are few. */
export function slope(samples) {
  if (samples.length < LEAST_SAMPLES) return null;
  const n = samples.length;
  const meanT = samples.reduce((sum, [t]) => sum + t, 0) / n;
  const meanV = samples.reduce((sum, [, v]) => sum + v, 0) / n;
  let above = 0;
  let below = 0;
  for (const [t, v] of samples) {
    above += (t - meanT) * (v - meanV);
    below += (t - meanT) ** 2;
  }
  return below > 0 ? above / below : null;
}

/**
 * What becomes of *limit* (a LimitView): {kind, seconds}. Kinds: "debt" (no room for so long),
 * "spent" (no room until it begins anew), "falling" (exhausted in), "rising" (full in), "full",
 * "steady", "held" (slots in use).
 * *budget* is the service's own forecast for a limit in a calendar window.
 */
export function forecast(limit, samples, budget = null) {
  if (budget) return ofBudget(limit, budget);
  if (limit.meter === "concurrency") {
    return { kind: limit.remaining >= limit.limit ? "full" : "held", seconds: null };
  }
  if (limit.window === "calendar") return { kind: "steady", seconds: limit.reset_after };
  if (limit.remaining < 1e-9) return { kind: "debt", seconds: roomIn(limit) };
  if (limit.remaining >= limit.limit * 0.995) return { kind: "full", seconds: null };
  const pace = slope(samples);
  if (pace === null) return { kind: "rising", seconds: limit.reset_after };
  const share = pace / limit.limit;
  if (share < -0.0005) {
    const seconds = limit.remaining / -pace;
    if (seconds < FARTHEST) return { kind: "falling", seconds };
  }
  if (share > 0.0005) {
    return { kind: "rising", seconds: Math.max(0, (limit.limit - limit.remaining) / pace) };
  }
  return { kind: "steady", seconds: null };
}

function ofBudget(limit, budget) {
  if (limit.remaining <= 0) return { kind: "spent", seconds: budget.resets_in };
  if (budget.exhausted_in !== null) return { kind: "falling", seconds: budget.exhausted_in };
  return { kind: "lasts", seconds: budget.resets_in };
}

/** Seconds until a limit in debt has room again: a bucket refills evenly until it is full. */
function roomIn(limit) {
  if (limit.window !== "bucket" || limit.limit <= limit.remaining) return limit.reset_after;
  return (limit.reset_after * -limit.remaining) / (limit.limit - limit.remaining);
}
