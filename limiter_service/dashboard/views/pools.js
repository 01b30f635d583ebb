// Every pool: its limits, its models, and how much room each of them has.

import { h } from "../lib/dom.js";
import { compact, plural, rate } from "../lib/format.js";
import { budgetFor, modelOf, poolsOf, trafficSeries } from "../model.js";
import { hrefOf } from "../attention.js";
import { chip, circuitChip, empty, heldChip, limitCells, panel, spark } from "./parts.js";

const SPARK = 60; // steps

export function pools(model) {
  const found = poolsOf(model.live);
  const omitted = model.live.omitted ? `${plural(model.live.omitted, "resource")} more ${model.live.omitted === 1 ? "is" : "are"} not shown` : null;
  return panel({ id: "pools", title: "Pools", note: omitted },
    found.length ? found.map((each) => pool(model, each)) : empty("No pool is configured. Add one to the pools file; it appears here at once."));
}

const VERDICTS = { up: ["good", "ok", "provider up"], degraded: ["warn", "half", "provider degraded"], down: ["bad", "open", "provider down"] };

function pool(model, found) {
  const [kind, shape, text] = VERDICTS[found.provider?.verdict] ?? ["plain", "note", "no verdict"];
  const degraded = found.resources.some((each) => each.degraded);
  const waiting = found.queue?.depth ?? 0;
  return h("article", { class: "pool", key: `pool-${found.pool}`, "aria-labelledby": `pool-${found.pool}` },
    h("div", { class: "title" },
      h("h3", { id: `pool-${found.pool}` }, found.pool),
      found.provider && chip(kind, shape, text),
      degraded && chip("bad", "warn", "degraded", "Each replica enforces its share from its own memory"),
      waiting > 0 && h("a", { class: "note", href: "#/queue" }, `${compact(waiting)} waiting`)),
    found.resources.length
      ? table(model, found)
      : empty("No model was asked for yet. Patterns appear with the models that meet them."));
}

function table(model, found) {
  return h("table", { class: "limits" },
    h("caption", { class: "unseen" }, `Limits of pool ${found.pool}`),
    h("thead", {}, h("tr", {}, ["Scope", "Limit", "Headroom", "Left", "Forecast"].map((text) => h("th", { scope: "col", class: `at-${text.toLowerCase()}` }, text)))),
    found.limits.length > 0 && group(model, {
      key: "whole", pool: found.pool, limits: found.limits, prefix: found.pool, view: found.resources[0],
      what: `pool ${found.pool}`, head: [h("span", { class: "name" }, "whole pool")],
    }),
    found.resources.map((view) => resource(model, found.pool, view)),
    found.tenants.map((each) => group(model, {
      key: `@${each.tenant}`, pool: found.pool, limits: each.limits, prefix: each.tenant, view: null,
      what: `tenant ${each.tenant}`, head: [h("span", { class: "name" }, each.tenant), h("span", { class: "meaning" }, "tenant")],
    })));
}

function resource(model, name, view) {
  const circuit = model.live.breakers.find((each) => each.resource === view.resource);
  const rates = model.rates.get(view.resource);
  const head = [
    h("span", { class: "chips" },
      h("a", { class: "name", href: hrefOf(view.resource) }, modelOf(view.resource)),
      circuitChip(circuit?.effective ?? view.breaker),
      circuit?.override && heldChip(circuit.override)),
    rates && pace(model, view.resource, rates),
  ];
  const limits = view.limits.filter((each) => each.scope === "model");
  return group(model, { key: view.resource, pool: name, limits, prefix: modelOf(view.resource), view, what: view.resource, head });
}

function pace(model, resource, rates) {
  const refused = rates.no_room + rates.stopped + rates.failed;
  const found = trafficSeries(model, resource);
  const rows = [
    { kind: "granted", values: found.granted.slice(-SPARK) },
    { kind: "no_room", values: found.no_room.slice(-SPARK) },
    { kind: "stopped", values: found.stopped.slice(-SPARK) },
  ];
  const words = refused ? `${rate(rates.granted)}/s, ${rate(refused)}/s refused` : `${rate(rates.granted)}/s`;
  return h("span", { class: "pace" }, rows.some((row) => row.values.some((value) => value > 0)) && spark(rows, `The last five minutes of ${resource}`), h("span", { class: "meaning" }, words));
}

function group(model, { key, pool, limits, prefix, view, what, head }) {
  const rows = limits.length ? limits : [null];
  return h("tbody", { key },
    rows.map((limit, i) => h("tr", { key: limit?.name ?? "none" },
      i === 0 && h("th", { class: "scope", scope: "rowgroup", rowspan: String(rows.length) }, head),
      limit
        ? limitCells(model, { pool, limit, prefix, budget: budgetFor(view, limit), what })
        : h("td", { colspan: "4", class: "none" }, "no limits of its own"))));
}
