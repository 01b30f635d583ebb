// Circuits: their state now, their last hour, and what an operator can do about them.

import { h } from "../lib/dom.js";
import { duration, percent, plural, time } from "../lib/format.js";
import { hrefOf } from "../attention.js";
import { button, circuitChip, empty, heldChip, panel } from "./parts.js";

export const HOUR = 3600;
const WIDTH = 1000;
const HEIGHT = 24;

export function breakers(model, actions) {
  const found = [...model.live.breakers].map((each) => ({ view: each, segments: segmentsOf(each, model.events, model.live.time) }));
  const notable = found.filter(({ view, segments }) => view.effective !== "closed" || view.override || segments.length > 1);
  const quiet = found.filter((each) => !notable.includes(each));
  const rows = (each) => table(model, each, actions);
  return panel({ id: "breakers", title: "Breakers", note: found.length ? "the last hour" : null },
    !found.length && empty("No resource has a breaker yet."),
    notable.length > 0 && rows(notable),
    quiet.length > 0 && (notable.length > 0 || quiet.length > 8)
      ? h("details", { key: "quiet" }, h("summary", {}, `${plural(quiet.length, "circuit")} closed for an hour`), rows(quiet))
      : quiet.length > 0 && rows(quiet));
}

function table(model, found, actions) {
  return h("table", { class: "circuits" },
    h("caption", { class: "unseen" }, "Circuits"),
    h("thead", {}, h("tr", {}, ["Resource", "State", "Last hour", "Failures", "Act"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, found.map(({ view, segments }) => row(model, view, segments, actions))));
}

function row(model, view, segments, actions) {
  return h("tr", { key: view.resource },
    h("th", { scope: "row" }, h("a", { class: "name", href: hrefOf(view.resource) }, view.resource)),
    h("td", { class: "state" }, circuitChip(view.effective), view.override && heldChip(view.override), h("span", { class: "meaning" }, why(view))),
    h("td", { class: "past" }, timeline(view.resource, segments, model.live.time)),
    h("td", { class: "failures" }, rates(view)),
    h("td", { class: "act" }, overrideButtons(view, actions)));
}

/** What can be ordered of a circuit, as buttons. */
export function overrideButtons(view, { hold, release }) {
  return [
    button("Override", () => hold(view), { label: `Override ${view.resource}` }),
    view.override && button("Release", () => release(view), { label: `Release ${view.resource}` }),
  ];
}

/** Why a circuit refuses, and until when. */
export function why(view) {
  const reason = view.reason ? view.reason.replaceAll("_", " ") : null;
  const again = view.retry_after ? `again in ${duration(view.retry_after)}` : null;
  return [reason, again].filter(Boolean).join(", ");
}

function rates(view) {
  const { failure } = view.rates;
  const calls = view.window.ok + view.window.fail;
  if (!calls) return h("span", { class: "meaning" }, "no calls of late");
  const over = failure.threshold !== null && failure.rate >= failure.threshold;
  return [
    h("span", { class: over ? "over" : "" }, percent(failure.rate)),
    h("span", { class: "meaning" }, failure.threshold === null ? "not judged" : `opens at ${percent(failure.threshold)}`),
  ];
}

/** What a circuit did in the last hour: [{state, from, to, held}], oldest first. */
export function segmentsOf(view, events, now) {
  const begun = now - HOUR;
  const mine = events.filter((each) => each.resource === view.resource).reverse(); // oldest first
  const changes = mine.filter((each) => each.type === "breaker");
  const points = changes.filter((each) => each.time > begun);
  const before = changes.filter((each) => each.time <= begun).at(-1);
  let state = before?.to ?? points[0]?.from ?? view.state;
  let from = begun;
  const found = [];
  for (const each of points) {
    found.push({ state, from, to: each.time, held: null });
    state = each.to;
    from = each.time;
  }
  found.push({ state, from, to: now, held: null });
  return [...found.filter((each) => each.to > each.from), ...heldOf(mine, begun, now, view)];
}

function heldOf(events, begun, now, view) {
  const found = [];
  let open = null;
  const close = (to) => open && found.push({ ...open, to: Math.min(to, open.ends ?? Infinity, now) });
  for (const each of events.filter((one) => one.type === "override")) {
    close(each.time);
    open = each.to === "none" ? null : { state: each.to, held: each.to, from: each.time, ends: each.lasts ? each.time + each.lasts : null };
  }
  close(view.override || !open?.ends ? now : open.ends);
  return found.map((each) => ({ ...each, from: Math.max(begun, each.from) })).filter((each) => each.to > each.from);
}

const WORDS = { closed: "closed", half_open: "half-open", open: "open", observe: "observed" };

/** Segments as a strip: open is tall, half-open half as tall, closed a line; held has a lid. */
export function timeline(resource, segments, now) {
  const x = (moment) => Math.max(0, Math.min(WIDTH, ((moment - (now - HOUR)) / HOUR) * WIDTH));
  const tall = { closed: 3, half_open: 11, open: 19 };
  const told = segments.filter((each) => each.state !== "closed" || each.held);
  const label = told.length
    ? told.slice(-6).map((each) => `${each.held ? "held " : ""}${WORDS[each.state] ?? each.state} from ${time(each.from)} for ${duration(each.to - each.from)}`).join("; ")
    : "closed for the whole hour";
  const rect = (each) => {
    const left = x(each.from);
    const width = Math.max(3, x(each.to) - left).toFixed(1);
    if (each.held) return h("rect", { class: "held", x: left.toFixed(1), y: "0", width, height: "3" });
    const height = tall[each.state] ?? 3;
    return h("rect", { class: each.state, x: left.toFixed(1), y: String(HEIGHT - height), width, height: String(height) });
  };
  return h("svg", { class: "timeline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${resource}: ${label}` },
    [0.25, 0.5, 0.75].map((at) => h("line", { class: "mark", x1: String(WIDTH * at), x2: String(WIDTH * at), y1: "4", y2: String(HEIGHT) })),
    segments.map(rect));
}
