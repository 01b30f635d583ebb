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
    open: { at: 0, levels: new Map() }, // the step that is not over
    rates: new Map(), // resource -> {granted, no_room, stopped, failed} per second, of late
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
  model.open = { at: past.times.at(-1) ?? 0, levels: new Map() };
  model.samples.clear();
}

function takeMoment(model, live, now) {
  model.live = live;
  model.heardAt = now;
  model.rates = new Map(live.traffic.map((each) => [each.resource, rateOf(each, live.traffic_seconds)]));
  if (live.store === null) takeLevels(model, live);
  if (!model.open.at) model.open.at = live.time - STEP;
  if (live.time - model.open.at >= STEP) closeStep(model, live.time);
}

function rateOf(traffic, seconds) {
  return Object.fromEntries(KINDS.map((kind) => [kind, seconds > 0 ? traffic[kind] / seconds : 0]));
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
  for (const [resource, rates] of model.rates) {
    const columns = model.traffic.get(resource) ?? blank(length);
    for (const kind of KINDS) columns[kind].push(rates[kind] * STEP);
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
  model.open = { at: time, levels: new Map() };
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
