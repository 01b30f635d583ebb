// The page: one stream in, one picture out, at most once a frame.

import { attention } from "./attention.js";
import { patch } from "./lib/dom.js";
import { keys } from "./lib/keys.js";
import { orders } from "./lib/orders.js";
import { stream } from "./lib/stream.js";
import { createModel, take } from "./model.js";
import { breakers } from "./views/breakers.js";
import { cost } from "./views/cost.js";
import { askKeys, confirm, holdCircuit, holdLimit } from "./views/dialog.js";
import { events } from "./views/events.js";
import { panel } from "./views/parts.js";
import { pools } from "./views/pools.js";
import { queue } from "./views/queue.js";
import { resource } from "./views/resource.js";
import { banner, keyNeeded, loading } from "./views/states.js";
import { concerns, summary } from "./views/summary.js";
import { top } from "./views/top.js";
import { trafficChart } from "./views/traffic.js";
import { h } from "./lib/dom.js";

const SECTIONS = ["pools", "queue", "breakers", "cost", "events"];
const STATS_EVERY = 10_000;

const model = createModel();
const head = document.getElementById("top");
const main = document.getElementById("main");
const said = document.getElementById("said");
let spoken = new Set();
let drawn = false;
let shown = null;

const live = stream({
  url: "v1/live",
  key: keys.read,
  message(message) {
    take(model, message, Date.now());
    if (message.name !== "happened") draw();
  },
  state(state) {
    model.connection = state;
    draw();
  },
});

const actions = {
  hold: (view) => holdCircuit(view, draw),
  release: (view) =>
    confirm({
      title: `Release ${view.resource}`,
      text: "Its breaker decides by itself again.",
      action: "Release",
      send: () => orders.release(view.resource),
      done: draw,
    }),
  reset: (view) =>
    confirm({
      title: `Reset ${view.resource}`,
      text: "Closes the circuit, forgets its failures, and lifts what its pool is latched by.",
      action: "Reset",
      send: () => orders.reset(view.resource),
      done: draw,
    }),
  holdLimit: (view, limit) => holdLimit(view, limit, draw),
  releaseLimit: (view, limit) =>
    confirm({
      title: `Release ${limit.name}`,
      text: "The file's value, or what the provider has stated, is in force again.",
      action: "Release",
      send: () => orders.releaseLimit(view.resource, limit.name, view.tenant),
      done: draw,
    }),
};

function routeOf(hash) {
  const [, kind, ...rest] = hash.replace(/^#/, "").split("/");
  if (kind === "resource" && rest.length > 1) {
    try {
      return { resource: rest.map(decodeURIComponent).join("/") };
    } catch {
      return { section: null }; // a link that somebody has cut
    }
  }
  return { section: SECTIONS.includes(kind) ? kind : null };
}

function draw() {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    picture();
  });
}

function picture() {
  const route = routeOf(location.hash);
  const found = attention(model.live);
  patch(head, top(model, { route, askKeys: () => askKeys(retry) }));
  patch(main, content(route, found));
  main.classList.toggle("stale", model.connection.name === "lost" && model.live !== null);
  document.title = titleOf(route, found);
  speak(found);
  arrive(route);
}

function content(route, found) {
  if (model.connection.name === "refused") return [keyNeeded(model, { saved: retry })];
  const above = banner(model, { again: live.again, now: Date.now() });
  if (model.live === null) return [above, loading(model)].filter(Boolean);
  const body = route.resource ? resource(model, route.resource, actions) : overview(found);
  return [above, ...body].filter(Boolean);
}

function overview(found) {
  return [
    h("h1", { class: "unseen", key: "h1" }, "Overview"),
    summary(model),
    (found.length > 0 || model.connection.name !== "lost") && concerns(found),
    h("div", { class: "columns", key: "columns" },
      h("div", { class: "main-column" },
        panel({ id: "traffic", title: "Acquires", note: "per second, in the whole fleet" }, trafficChart(model)),
        pools(model),
        breakers(model, actions)),
      h("div", { class: "side-column" }, queue(model), cost(model), events(model))),
  ];
}

function titleOf(route, found) {
  const many = found.filter((each) => each.level !== "note").length;
  const name = route.resource ?? "Sluicegate";
  if (model.connection.name === "lost") return `disconnected \u00b7 ${name}`;
  return many ? `(${many}) ${name}` : name;
}

/** Tell a screen reader what has begun to need attention, and nothing else. */
function speak(found) {
  const bad = new Set(found.filter((each) => each.level === "bad").map((each) => each.text.replace(/[\d.,]+/g, "#")));
  const fresh = found.filter((each) => each.level === "bad" && !spoken.has(each.text.replace(/[\d.,]+/g, "#")));
  if (fresh.length) said.textContent = fresh.map((each) => each.text).join(". ");
  spoken = bad;
}

/** After a link was followed: go there, with focus. */
function arrive(route) {
  const place = `${route.resource ?? ""} ${route.section ?? ""}`;
  if (place === shown || model.live === null) return;
  const first = shown === null;
  shown = place;
  const target = document.getElementById(route.resource ? "t-resource" : `t-${route.section}`);
  if (target) {
    target.focus({ preventScroll: true });
    target.closest("section, .crumb").scrollIntoView();
  } else if (!first) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function retry() {
  live.again();
  stats();
}

async function stats() {
  if (document.hidden || model.connection.name !== "live") return;
  try {
    const headers = keys.read() ? { authorization: `Bearer ${keys.read()}` } : {};
    const answer = await fetch("v1/stats", { headers, cache: "no-store" });
    if (answer.ok) model.stats = await answer.json();
  } catch {
    // the stream says that the service is away
  }
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part behind # is the route
  main.focus();
});
addEventListener("hashchange", () => {
  shown ??= "";
  draw();
});
addEventListener("themechange", draw);
addEventListener("online", () => live.again());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && model.connection.name === "lost") live.again();
});
setInterval(stats, STATS_EVERY);
setTimeout(stats, 1500);
setInterval(() => {
  if (model.connection.name === "lost") draw(); // it counts down
}, 500);
