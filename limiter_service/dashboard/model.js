// What the page knows: the last moment, the last minutes, recent events. No document, no network.

export const STEP = 5; // seconds
const STEPS = 180;
const SAMPLES = 30; // seconds of levels that a forecast looks at
const EVENTS = 300;
const KINDS = ["granted", "no_room", "stopped", "failed"];

/** Which limit is meant, wherever it is met. */
export function limitKey(pool, limit) {
  return `${pool} ${limit.scope} ${limit.name}`;
}

/** The part of a resource before the first slash. */
export function poolOf(resource) {
  return resource.split("/", 1)[0];
}

/** The part of a resource behind it. */
export function modelOf(resource) {
  return resource.slice(poolOf(resource).length + 1);
}

export function createModel() {
  return {
    connection: { name: "connecting" },
    live: null,
    heardAt: 0,
    stats: null,
    events: [],
    times: [],
    traffic: new Map(), // resource -> {granted: [], no_room: [], stopped: [], failed: []}
    levels: new Map(), // "resource limit" -> [share or null]
    samples: new Map(), // limitKey -> [[seconds, remaining]]
    open: { at: 0, counts: new Map(), levels: new Map() },
    rates: new Map(), // resource -> {granted, no_room, stopped, failed} per second, of late
    recent: [], // [{time, counts}] of the last seconds
  };
}

/** Take in one message of the stream. */
export function take(model, message, now) {
  if (message.name === "past") return takePast(model, message.data);
  if (message.name === "happened") {
    model.events.unshift(message.data);
    model.events.length = Math.min(model.events.length, EVENTS);
  }
  if (message.name === "live") takeMoment(model, message.data, now);
}

/** A new stream tells everything again. */
function takePast(model, past) {
  model.events = [];
  model.times = past.times;
  model.traffic = new Map(past.traffic.map(({ resource, ...columns }) => [resource, columns]));
  model.levels = new Map(past.levels.map((each) => [`${each.resource} ${each.limit}`, each.left]));
  model.open = { at: past.times.at(-1) ?? 0, counts: new Map(), levels: new Map() };
  model.recent = [];
  model.samples.clear();
}

function takeMoment(model, live, now) {
  const before = model.recent.at(-1);
  model.live = live;
  model.heardAt = now;
  const counts = new Map(live.traffic.map((each) => [each.resource, KINDS.map((kind) => each[kind])]));
  if (before) addTo(model.open.counts, counts, before.counts);
  model.recent.push({ time: live.time, counts });
  while (model.recent.length > 2 && live.time - model.recent[0].time > 10) model.recent.shift();
  model.rates = ratesOf(model.recent);
  if (live.store === null) takeLevels(model, live);
  if (!model.open.at) model.open.at = live.time;
  if (live.time - model.open.at >= STEP) closeStep(model, live.time);
}

function addTo(sums, counts, before) {
  for (const [resource, now] of counts) {
    const then = before.get(resource) ?? [0, 0, 0, 0];
    const sum = sums.get(resource) ?? [0, 0, 0, 0];
    // A replica that began anew counts from zero.
    sums.set(resource, sum.map((value, i) => value + (now[i] < then[i] ? now[i] : now[i] - then[i])));
  }
}

function ratesOf(recent) {
  const first = recent[0];
  const last = recent.at(-1);
  const seconds = last.time - first.time;
  const rates = new Map();
  for (const [resource, counts] of last.counts) {
    const then = first.counts.get(resource) ?? [0, 0, 0, 0];
    const each = KINDS.map((kind, i) => [kind, seconds > 0 ? Math.max(0, counts[i] - then[i]) / seconds : 0]);
    rates.set(resource, Object.fromEntries(each));
  }
  return rates;
}

function takeLevels(model, live) {
  const seen = new Set();
  for (const { resource, limits } of chains(live)) {
    for (const limit of limits) {
      const key = limitKey(poolOf(resource), limit);
      if (!seen.has(key)) sample(model, key, live.time, limit.remaining);
      seen.add(key);
      if (limit.limit) model.open.levels.set(`${resource} ${limit.name}`, limit.remaining / limit.limit);
    }
  }
}

function chains(live) {
  const tenants = live.tenants.map((each) => ({ resource: `${each.pool}/@${each.tenant}`, limits: each.limits }));
  return [...live.resources, ...tenants];
}

function sample(model, key, time, remaining) {
  const samples = model.samples.get(key) ?? [];
  samples.push([time, remaining]);
  while (time - samples[0][0] > SAMPLES) samples.shift();
  model.samples.set(key, samples);
}

function closeStep(model, time) {
  const length = model.times.length;
  const seconds = time - model.open.at;
  for (const [resource, counts] of model.open.counts) {
    const columns = model.traffic.get(resource) ?? blank(length);
    KINDS.forEach((kind, i) => columns[kind].push((counts[i] * STEP) / seconds));
    model.traffic.set(resource, columns);
  }
  for (const columns of model.traffic.values()) {
    for (const kind of KINDS) if (columns[kind].length === length) columns[kind].push(0);
  }
  for (const name of model.open.levels.keys()) {
    if (!model.levels.has(name)) model.levels.set(name, Array(length).fill(null));
  }
  for (const [name, left] of model.levels) left.push(model.open.levels.get(name) ?? null);
  model.times.push(time);
  if (model.times.length > STEPS) trim(model);
  model.open = { at: time, counts: new Map(), levels: new Map() };
}

function blank(length) {
  return Object.fromEntries(KINDS.map((kind) => [kind, Array(length).fill(0)]));
}

function trim(model) {
  model.times.shift();
  for (const columns of model.traffic.values()) for (const kind of KINDS) columns[kind].shift();
  for (const left of model.levels.values()) left.shift();
}

/** Acquires per second in every step: of one resource, or of all. */
export function trafficSeries(model, resource = null) {
  const chosen = [...model.traffic].filter(([name]) => resource === null || name === resource);
  const column = (kind) =>
    model.times.map((_, i) => chosen.reduce((sum, [, columns]) => sum + columns[kind][i], 0) / STEP);
  return { times: model.times, ...Object.fromEntries(KINDS.map((kind) => [kind, column(kind)])) };
}

/** Acquires per second of late, of all resources. */
export function totalRates(model) {
  const total = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
  for (const each of model.rates.values()) for (const kind of KINDS) total[kind] += each[kind];
  return total;
}

/** Pools with what belongs to them, in the order of the service. */
export function poolsOf(live) {
  const pools = new Map();
  const of = (pool) => {
    if (!pools.has(pool)) {
      pools.set(pool, { pool, limits: [], resources: [], tenants: [], queue: null, provider: null });
    }
    return pools.get(pool);
  };
  for (const queue of live.queues) of(queue.pool).queue = queue;
  for (const provider of live.providers) of(provider.pool).provider = provider;
  for (const view of live.resources) {
    const found = of(poolOf(view.resource));
    found.resources.push(view);
    for (const limit of view.limits) {
      const known = found.limits.some((each) => each.name === limit.name);
      if (limit.scope === "pool" && !known) found.limits.push(limit);
    }
  }
  for (const each of live.tenants) of(each.pool).tenants.push(each);
  return [...pools.values()].filter((each) => each.resources.length || each.queue);
}

/** Every budget once: {pool, resource, ...BudgetView}. */
export function budgetsOf(live) {
  const found = new Map();
  for (const view of live.resources) {
    for (const budget of view.budgets) {
      const key = `${poolOf(view.resource)} ${budget.name}`;
      if (!found.has(key)) found.set(key, { pool: poolOf(view.resource), resource: view.resource, ...budget });
    }
  }
  return [...found.values()];
}

/** The service's forecast for a limit in a calendar window, else null. */
export function budgetFor(view, limit) {
  return view?.budgets.find((budget) => budget.name === limit.name) ?? null;
}
