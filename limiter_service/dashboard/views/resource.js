// One resource: its limits over time, its circuit in detail, who waits for it, what happened.

import { h } from "../lib/dom.js";
import { count, duration, moment, percent, plural, time } from "../lib/format.js";
import { budgetFor, modelOf, poolOf } from "../model.js";
import { chart } from "./chart.js";
import { overrideButtons, segmentsOf, timeline, why } from "./breakers.js";
import { table as costTable } from "./cost.js";
import { list as eventList } from "./events.js";
import { button, chip, circuitChip, empty, heldChip, icon, limitCells, panel } from "./parts.js";
import { table as queueTable } from "./queue.js";
import { trafficChart } from "./traffic.js";

const TAIL = 4; // limits that one chart can tell apart

export function resource(model, name, actions) {
  const view = model.live.resources.find((each) => each.resource === name);
  if (!view) return missing(model, name);
  const circuit = model.live.breakers.find((each) => each.resource === name);
  return [
    heading(view, circuit),
    h("div", { class: "detail", key: "detail" },
      h("div", { class: "main-column" },
        limits(model, view, actions),
        circuit && breaker(model, circuit, actions)),
      h("div", { class: "side-column" },
        panel({ id: "traffic", title: "Acquires", note: "per second, in the whole fleet" }, trafficChart(model, name), refusals(model, name)),
        waiters(model, view),
        costs(model, name),
        panel({ id: "events", title: "Events" }, eventList(model.events.filter((each) => each.resource === name))))),
  ];
}

function heading(view, circuit) {
  return h("div", { class: "crumb", key: "crumb" },
    h("a", { href: "#/", class: "back" }, icon("back"), "Overview"),
    h("h1", { tabindex: "-1", id: "t-resource" }, h("span", { class: "pool-name" }, `${poolOf(view.resource)} / `), modelOf(view.resource)),
    circuitChip(circuit?.effective ?? view.breaker),
    circuit?.override && heldChip(circuit.override),
    view.degraded && chip("bad", "warn", "degraded"));
}

function missing(model, name) {
  const gone = model.live.store
    ? "The store does not answer, so nothing is known of it."
    : "It is not configured, or it was not asked for since the pools file was read.";
  return [
    h("div", { class: "crumb", key: "crumb" }, h("a", { href: "#/", class: "back" }, icon("back"), "Overview"), h("h1", { tabindex: "-1", id: "t-resource" }, name)),
    h("div", { class: "panel", key: "missing" }, empty(`No figures of ${name}. ${gone}`)),
  ];
}

function limits(model, view, actions) {
  const order = [...view.limits].sort((a, b) => (a.scope !== "model") - (b.scope !== "model"));
  const shares = order.map((limit) => ({ name: limit.name, values: model.levels.get(`${view.resource} ${limit.name}`) ?? [] })).slice(0, TAIL);
  const series = shares.map((each, i) => ({ ...each, values: aligned(each.values, model.times.length), kind: `level-${i}`, fill: false }));
  const now = view.limits.map((limit) => `${limit.name} ${percent(limit.limit ? limit.remaining / limit.limit : 0)}`).join(", ");
  return panel({ id: "limits", title: "Limits", note: view.tenant === "default" ? "as tenant default meets them" : `for tenant ${view.tenant}` },
    view.limits.length
      ? [
          h("table", { class: "limits single" },
            h("caption", { class: "unseen" }, `Limits of ${view.resource}`),
            h("thead", {}, h("tr", {}, ["Limit", "Headroom", "Left", "Forecast", "Act"].map((text) => h("th", { scope: "col", class: `at-${text.toLowerCase()}` }, text)))),
            h("tbody", {}, view.limits.map((limit) => limitRow(model, view, limit, actions)))),
          chart({ key: "levels", times: model.times, series, format: (value) => percent(Math.max(0, value)), top: 1, now: model.live.time, label: `What was left of each limit over the last 15 minutes. At present: ${now}.` }),
        ]
      : empty("It meets no limit: every acquire is granted."));
}

function aligned(values, length) {
  return values.length === length ? values : [...Array(Math.max(0, length - values.length)).fill(null), ...values.slice(-length)];
}

function limitRow(model, view, limit, { holdLimit, releaseLimit }) {
  return h("tr", { key: limit.name },
    limitCells(model, { pool: poolOf(view.resource), limit, prefix: null, budget: budgetFor(view, limit), what: view.resource }),
    h("td", { class: "act" },
      button("Hold", () => holdLimit(view, limit), { label: `Hold ${limit.name} to another value` }),
      limit.override && button("Release", () => releaseLimit(view, limit), { label: `Release ${limit.name}` })));
}

function refusals(model, name) {
  const found = model.live.traffic.find((each) => each.resource === name);
  const refused = found?.refusals ?? [];
  if (!refused.length) return h("p", { class: "note" }, "Nothing was refused by this replica since it started.");
  const total = refused.reduce((sum, each) => sum + each.count, 0);
  return h("div", { class: "scroll" }, h("table", { class: "plain" },
    h("caption", {}, "Refused by this replica since it started"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Refused"), h("th", { scope: "col" }, "by"), h("th", { scope: "col", class: "number" }, "times"), h("th", { scope: "col", class: "number" }, "share"))),
    h("tbody", {}, refused.map((each) => h("tr", { key: `${each.code} ${each.reason} ${each.limit}` },
      h("th", { scope: "row" }, each.code.replaceAll("_", " ")),
      h("td", {}, each.limit || (each.reason ?? "").replaceAll("_", " ")),
      h("td", { class: "number" }, count(each.count)),
      h("td", { class: "number" }, percent(each.count / total)))))));
}

function breaker(model, view, actions) {
  const { window: seen, probes, rates } = view;
  const fact = (name, value, note = null) => h("div", {}, h("dt", {}, name), h("dd", {}, value, note && h("span", { class: "meaning" }, note)));
  const against = (each) => (each.threshold === null ? "not judged" : `opens at ${percent(each.threshold)}`);
  return panel({ id: "breaker", title: "Breaker", aside: [overrideButtons(view, actions), button("Reset", () => actions.reset(view), { label: `Reset ${view.resource}` })] },
    h("div", { class: "wide-timeline" }, timeline(view.resource, segmentsOf(view, model.events, model.live.time), model.live.time),
      h("div", { class: "scale", "aria-hidden": "true" }, ["1 h ago", "45 min", "30 min", "15 min", "now"].map((text) => h("span", {}, text)))),
    h("dl", { class: "facts" },
      fact("State", view.effective.replace("_", "-"), view.since ? `since ${moment(view.since)}` : "since it was first asked for"),
      why(view) && fact("Refuses", why(view)),
      view.override && fact("Held", view.override.mode, `by ${view.override.actor}, ${view.override.until === null ? "until released" : `until ${time(view.override.until)}`}: ${view.override.reason || "no reason given"}`),
      fact("Failures", percent(rates.failure.rate), against(rates.failure)),
      fact("Slow", percent(rates.slow.rate), against(rates.slow)),
      fact("Throttled", percent(rates.throttle.rate), against(rates.throttle)),
      fact(`Last ${duration(seen.seconds)}`, `${count(seen.ok)} good, ${count(seen.fail)} failed`, rates.min_calls ? `judged from ${count(rates.min_calls)} calls on` : null),
      fact("Workers that fail", `${count(seen.failing_workers)} of ${count(seen.workers)}`),
      view.effective !== "closed" && fact("Probes", `${probes.held} of ${probes.limit} under way`, `${probes.ok} of ${probes.needed} passed, ${probes.lost} lost`),
      view.ramp < 1 && fact("Ramp", percent(view.ramp), "of the rate at which its limits refill"),
      view.open_count > 0 && fact("Opened", plural(view.open_count, "time"), "in a row")),
    view.last_errors.length > 0 && h("div", { class: "scroll" }, h("table", { class: "plain" },
      h("caption", {}, "Last failures"),
      h("tbody", {}, view.last_errors.map((each) => h("tr", { key: `${each.time} ${each.outcome}` },
        h("td", {}, h("time", { datetime: new Date(each.time * 1000).toISOString(), title: moment(each.time) }, time(each.time))),
        h("th", { scope: "row" }, each.outcome.replaceAll("_", " ")),
        h("td", {}, each.status ? `status ${each.status}` : ""))))))); 
}

function waiters(model, view) {
  const queue = model.live.queues.find((each) => each.pool === poolOf(view.resource));
  const lines = (queue?.lines ?? []).filter((each) => each.resource === view.resource);
  const depth = lines.reduce((sum, each) => sum + each.waiters, 0);
  return panel({ id: "queue", title: "Queue", note: depth ? plural(depth, "waiter") : null }, lines.length ? queueTable(lines) : empty("Nobody waits for it."));
}

function costs(model, name) {
  const found = (model.stats?.costs ?? []).filter((each) => each.resource === name);
  return panel({ id: "cost", title: "Cost" }, found.length ? costTable(found) : empty("No call was settled with its usage yet."));
}

