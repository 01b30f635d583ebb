// Who waits, by tenant, and how long a new request would.

import { h } from "../lib/dom.js";
import { count, duration, plural } from "../lib/format.js";
import { hrefOf } from "../attention.js";
import { bar, empty, panel } from "./parts.js";

const MOST = 12;

export function queue(model) {
  const { queues } = model.live;
  const lines = queues.flatMap((each) => each.lines.map((line) => ({ pool: each.pool, ...line })));
  const depth = queues.reduce((sum, each) => sum + each.depth, 0);
  return panel({ id: "queue", title: "Queue", note: depth ? `${plural(depth, "request waits", "requests wait")}` : null },
    queues.filter((each) => each.depth > 0).map(fullness),
    lines.length ? table(lines) : empty("Nobody waits."));
}

function fullness(each) {
  const share = each.max_waiters ? each.depth / each.max_waiters : 1;
  const grade = share >= 0.8 ? "low" : "good";
  return h("div", { class: "fullness", key: each.pool },
    h("span", { class: "name" }, each.pool),
    bar(share, grade, `places taken in the queue of ${each.pool}`),
    h("span", { class: "figures" }, `${count(each.depth)} of ${count(each.max_waiters)} places`));
}

/** Lines of a queue as a table. */
export function table(lines) {
  const shown = [...lines].sort((a, b) => b.waiters - a.waiters).slice(0, MOST);
  return h("div", { class: "scroll" },
    h("table", { class: "plain stacked" },
      h("caption", { class: "unseen" }, "Waiters by tenant, priority and resource"),
      h("thead", {}, h("tr", {}, ["Tenant", "Resource", "Waiting", "Oldest", "Predicted wait"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, shown.map(row))),
    lines.length > MOST && h("p", { class: "note" }, `and ${plural(lines.length - MOST, "shorter line")}`));
}

function row(line) {
  const waits = line.predicted_wait === null ? "unknown" : [duration(line.predicted_wait), h("span", { class: "meaning" }, ` p90 ${duration(line.predicted_wait_p90)}`)];
  return h("tr", { key: `${line.tenant} ${line.resource} ${line.priority}` },
    h("th", { scope: "row" },
      h("span", { class: "name" }, line.tenant),
      h("span", { class: "meaning" }, `priority ${line.priority}`, line.blocked_by_tenant && "; short of its own limit")),
    h("td", { "data-name": "resource" }, h("a", { href: hrefOf(line.resource) }, line.resource)),
    h("td", { class: "number", "data-name": "waiting" }, count(line.waiters)),
    h("td", { class: "number", "data-name": "oldest" }, duration(line.oldest)),
    h("td", { "data-name": "predicted" }, waits));
}
