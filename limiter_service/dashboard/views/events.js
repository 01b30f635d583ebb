// What happened of late, the newest first.

import { h } from "../lib/dom.js";
import { count, duration, moment, time } from "../lib/format.js";
import { hrefOf } from "../attention.js";
import { empty, icon, panel } from "./parts.js";

const MOST = 14;

export function events(model) {
  const { events: all } = model;
  return panel({ id: "events", title: "Events" }, list(all));
}

/** Events as a list; the older ones behind a click. */
export function list(all) {
  if (!all.length) return empty("Nothing happened of late.");
  const rest = all.slice(MOST);
  const items = (each) => h("ol", { class: "events-list" }, each.map(item));
  return [items(all.slice(0, MOST)), rest.length > 0 && h("details", { key: "older" }, h("summary", {}, `${rest.length} older`), items(rest))];
}

function item(each) {
  const [shape, kind] = look(each);
  return h("li", { key: `${each.time} ${each.type} ${each.resource ?? each.key} ${each.to}` },
    h("time", { datetime: new Date(each.time * 1000).toISOString(), title: moment(each.time) }, time(each.time)),
    h("span", { class: `shape ${kind}` }, icon(shape)),
    h("span", { class: "what" },
      each.resource ? h("a", { href: hrefOf(each.resource) }, each.resource) : h("span", {}, each.key ? `key ${each.key}` : "fleet"), " ", words(each),
      each.actor && h("span", { class: "meaning" }, ` by ${each.actor}`),
      each.reason && each.type !== "breaker" && h("span", { class: "meaning" }, ` \u201c${each.reason}\u201d`)));
}

const STATES = { closed: ["ok", "good"], half_open: ["half", "warn"], open: ["open", "bad"] };

function look(each) {
  if (each.type === "breaker") return STATES[each.to] ?? ["note", "plain"];
  if (each.type === "override" || each.type === "limit_override") return ["hold", "held"];
  if (each.type.startsWith("key_")) return ["key", "plain"];
  if (each.type === "latch") return ["open", "bad"];
  if (each.type === "degraded") return each.to === "store" ? ["ok", "good"] : ["open", "bad"];
  if (each.type === "reset") return ["ok", "good"];
  return each.type.startsWith("limit") ? ["down", "plain"] : ["warn", "warn"];
}

const NAMES = { closed: "closed", half_open: "half-open", open: "open", observe: "in observation" };

const WHY = { consecutive: "failures in a row", failure_rate: "too many failures", slow_rate: "too many slow answers", throttle_rate: "throttled too often" };

/** A figure that comes as text. */
function figure(text) {
  return Number.isFinite(Number(text)) ? count(Number(text)) : text;
}

function words(each) {
  const lasts = each.lasts ? ` for ${duration(each.lasts)}` : "";
  switch (each.type) {
    case "breaker":
      return `went ${NAMES[each.from] ?? each.from} \u2192 ${NAMES[each.to] ?? each.to}${each.reason ? `: ${WHY[each.reason] ?? each.reason.replaceAll("_", " ")}` : ""}${lasts && `,${lasts}`}`;
    case "override":
      return each.to === "none" ? "was released" : `is held ${NAMES[each.to] ?? each.to}${lasts}`;
    case "limit_override":
      return each.to === "none" ? `${each.limit} was released` : `${each.limit} is held at ${figure(each.to)}${lasts}`;
    case "limit_lowered":
      return `${each.limit}: the provider states ${figure(each.to)} instead of ${figure(each.from)}`;
    case "limit_learned":
      return `${each.limit}: learned ${figure(each.to)} instead of ${figure(each.from)}`;
    case "key_created":
      return "was created";
    case "key_revoked":
      return "was revoked";
    case "cooldown":
      return `cools down${lasts}`;
    case "latch":
      return "is latched until somebody acts";
    case "probe_lost":
      return `lost ${each.count ?? 1} probe${(each.count ?? 1) === 1 ? "" : "s"}`;
    case "degraded":
      return each.to === "store"
        ? `has its store again${lasts && `, lost${lasts}`}; ${count(each.count ?? 0)} granted meanwhile`
        : `lost its store: decided here alone (${each.to})`;
    case "would_open":
      return "would have opened";
    default:
      return each.type.replaceAll("_", " ");
  }
}
