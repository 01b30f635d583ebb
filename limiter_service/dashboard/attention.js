// What an operator should know first, the worst first. Pure.

import { amount, duration, percent, plural } from "./lib/format.js";
import { budgetsOf, poolOf, poolsOf } from "./model.js";

const LOW = 0.1;
const CROWDED = 0.8;

/** [{level: "bad" | "warn" | "note", text, href}] */
export function attention(live) {
  if (live === null) return [];
  if (live.store !== null) {
    return [{ level: "bad", text: `The store does not answer: ${live.store.replace(/^the store did not answer: /, "")}`, href: null }];
  }
  const found = [
    ...degraded(live),
    ...providers(live),
    ...circuits(live),
    ...budgets(live),
    ...limits(live),
    ...queues(live),
  ];
  const order = { bad: 0, warn: 1, note: 2 };
  return found.sort((a, b) => order[a.level] - order[b.level]);
}

/** Where a resource is shown. */
export function hrefOf(resource) {
  return `#/resource/${resource.split("/").map(encodeURIComponent).join("/")}`;
}

function degraded(live) {
  const names = live.resources.filter((each) => each.degraded).map((each) => poolOf(each.resource));
  return [...new Set(names)].map((pool) => ({
    level: "bad",
    text: `Pool ${pool} is degraded: each replica enforces its share from its own memory`,
    href: "#/pools",
  }));
}

function providers(live) {
  const found = [];
  for (const each of live.providers) {
    if (each.latch) found.push({ level: "bad", text: `Pool ${each.pool} is latched: ${each.latch.replaceAll("_", " ")}`, href: "#/breakers" });
    else if (each.verdict === "down") found.push({ level: "bad", text: `Provider of ${each.pool} looks down: ${plural(each.open_models.length, "model")} open`, href: "#/breakers" });
  }
  return found;
}

function circuits(live) {
  const found = [];
  for (const each of live.breakers) {
    const href = hrefOf(each.resource);
    if (each.override) {
      const until = each.override.until === null ? "until released" : `for ${duration(each.override.until - live.time)}`;
      const words = { open: "open", closed: "closed", observe: "in observation" };
      found.push({
        level: each.override.mode === "open" ? "bad" : "warn",
        text: `${each.resource} is held ${words[each.override.mode]} by ${each.override.actor} ${until}`,
        href,
      });
    } else if (each.effective === "open") {
      const again = each.retry_after ? `, tries again in ${duration(each.retry_after)}` : "";
      found.push({ level: "bad", text: `${each.resource} is open${again}`, href });
    } else if (each.effective === "half_open") {
      found.push({ level: "warn", text: `${each.resource} is half-open: probes pass, other calls do not`, href });
    }
  }
  return found;
}

function budgets(live) {
  return budgetsOf(live)
    .filter((each) => !each.shadow)
    .flatMap((each) => {
      const href = "#/cost";
      const name = `Budget ${each.name}`;
      if (each.spent >= each.limit) return [{ level: "bad", text: `${name} is spent; it begins anew in ${duration(each.resets_in)}`, href }];
      if (each.exhausted_in === null) return [];
      const early = duration(each.resets_in - each.exhausted_in);
      return [{ level: "warn", text: `${name} lasts ${duration(each.exhausted_in)} at this pace, ${early} too short`, href }];
    });
}

function limits(live) {
  const found = [];
  const own = live.resources.map((view) => [view.resource, view.limits.filter((each) => each.scope === "model")]);
  const shared = poolsOf(live).map((each) => [null, each.limits, each.pool]);
  const tenants = live.tenants.map((each) => [null, each.limits, each.pool]);
  for (const [resource, each, pool] of [...own, ...shared, ...tenants]) {
    for (const limit of each) {
      if (limit.shadow || limit.window === "calendar" || limit.remaining >= limit.limit * LOW) continue;
      const where = resource ? `${resource} ${limit.name.slice(limit.name.lastIndexOf(".") + 1)}` : `${pool}: ${limit.name}`;
      const href = resource ? hrefOf(resource) : "#/pools";
      const empty = limit.remaining < 1e-9;
      const left = empty ? "has no room" : `has ${percent(limit.remaining / limit.limit)} left`;
      const debt = limit.remaining < 0 ? ` and a debt of ${amount(limit.meter, -limit.remaining)}` : "";
      found.push({ level: "warn", text: `${where} ${left}${debt}`, href });
    }
  }
  return found;
}

function queues(live) {
  return live.queues.flatMap((each) => {
    if (each.max_waiters && each.depth >= each.max_waiters * CROWDED) {
      return [{ level: "bad", text: `The queue of ${each.pool} is ${percent(each.depth / each.max_waiters)} full`, href: "#/queue" }];
    }
    const slow = each.lines.filter((line) => (line.predicted_wait_p90 ?? 0) > each.max_wait);
    if (!slow.length) return [];
    const waits = `waits longer than ${duration(each.max_wait)} are predicted`;
    return [{ level: "warn", text: `In ${each.pool} ${waits}: new requests are refused at once`, href: "#/queue" }];
  });
}
