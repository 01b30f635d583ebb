// The first line of the overview, and what needs attention.

import { h } from "../lib/dom.js";
import { count, duration, money, percent, plural, rate } from "../lib/format.js";
import { budgetsOf, modelOf, totalRates } from "../model.js";
import { hrefOf } from "../attention.js";
import { icon } from "./parts.js";

export function summary(model) {
  const { live } = model;
  const rates = totalRates(model);
  const refused = rates.no_room + rates.stopped + rates.failed;
  return h("dl", { class: "summary", key: "summary", "aria-label": "At a glance" },
    tile("Granted", rate(rates.granted), "per second, in the fleet"),
    tile("Refused", rate(refused), refused ? reasons(rates) : "per second, in the fleet", refused > rates.granted ? "warn" : ""),
    waiting(live),
    inFlight(live),
    tightest(live),
    spending(live));
}

function tile(name, value, note, grade = "", href = null) {
  return h("div", { class: `tile ${grade}` },
    h("dt", {}, name),
    h("dd", { class: "value" }, href ? h("a", { href }, value) : value),
    h("dd", { class: "note" }, note));
}

function reasons(rates) {
  const parts = [["no room", rates.no_room], ["stopped", rates.stopped], ["failed", rates.failed]];
  return parts.filter(([, value]) => value > 0).map(([text, value]) => `${rate(value)} ${text}`).join(", ");
}

function waiting(live) {
  const depth = live.queues.reduce((sum, each) => sum + each.depth, 0);
  const oldest = Math.max(0, ...live.queues.map((each) => each.oldest));
  return tile("Waiting", count(depth), depth ? `the oldest for ${duration(oldest)}` : "nobody stands in a queue", "", "#/queue");
}

function inFlight(live) {
  const known = live.resources.filter((each) => each.in_flight !== null);
  const sum = known.reduce((total, each) => total + each.in_flight, 0);
  return tile("In flight", known.length ? count(sum) : "\u2013", known.length ? "calls with a slot" : "no limit on concurrency");
}

function tightest(live) {
  const all = live.resources.flatMap((view) => view.limits.filter((each) => !each.shadow && each.limit).map((limit) => ({ view, limit, share: limit.remaining / limit.limit })));
  if (!all.length) return tile("Tightest limit", "\u2013", "no limits are configured");
  const { view, limit, share } = all.reduce((a, b) => (b.share < a.share ? b : a));
  const name = limit.scope === "model" ? `${modelOf(view.resource)} ${limit.name.split(".").at(-1)}` : limit.name;
  return tile("Tightest limit", percent(share), `left of ${name}`, share <= 0 ? "bad" : share < 0.1 ? "warn" : "", hrefOf(view.resource));
}

function spending(live) {
  const budgets = budgetsOf(live).filter((each) => each.meter === "cost_usd" && !each.shadow);
  if (!budgets.length) return tile("Budget", "\u2013", "no budget in money");
  const first = budgets.reduce((a, b) => (b.spent / b.limit > a.spent / a.limit ? b : a));
  const lasts = first.spent >= first.limit ? "is spent" : first.exhausted_in === null ? "lasts" : `exhausted in ${duration(first.exhausted_in)}`;
  const grade = first.spent >= first.limit ? "bad" : first.exhausted_in === null ? "" : "warn";
  return tile("Budget", money(first.spent), `of ${money(first.limit)}; ${lasts}`, grade, "#/cost");
}

const SHAPES = { bad: "open", warn: "warn", note: "note" };
const MOST = 6;

export function concerns(found) {
  if (!found.length) {
    return h("div", { class: "concerns calm", key: "concerns" }, icon("ok"), h("p", {}, "Nothing needs attention."));
  }
  const item = (each) => h("li", { class: each.level, key: each.text.replace(/[\d.,]+/g, "#") + each.href },
    icon(SHAPES[each.level]), each.href ? h("a", { href: each.href }, each.text) : h("span", {}, each.text));
  const rest = found.slice(MOST);
  return h("section", { class: "concerns", key: "concerns", "aria-labelledby": "t-concerns" },
    h("h2", { id: "t-concerns" }, `${plural(found.length, "thing needs", "things need")} attention`),
    h("ul", {}, found.slice(0, MOST).map(item)),
    rest.length > 0 && h("details", {}, h("summary", {}, `${rest.length} more`), h("ul", {}, rest.map(item))));
}
