// The pieces that every view is made of.

import { h } from "../lib/dom.js";
import { forecast } from "../lib/forecast.js";
import { about, amount, meaning, moment, percent } from "../lib/format.js";
import { limitKey } from "../model.js";

const PATHS = {
  ok: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM5 8.200l2.100 2.100L11.200 6",
  half: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM8 1.500v13M8 4h4.500M8 8h6.500M8 12h4.500",
  open: "M5.300 1.500h5.400l3.800 3.800v5.400l-3.800 3.800H5.300l-3.800-3.800V5.300zM5.500 5.500l5 5M10.500 5.500l-5 5",
  warn: "M8 1.800 15 14H1zM8 6v4M8 12v.5",
  note: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM8 7.300v4M8 4.500v.5",
  hold: "M3.500 7.500h9v7h-9zM5.500 7.500V5a2.500 2.500 0 0 1 5 0v2.500",
  up: "M8 13V3M4 7l4-4 4 4",
  down: "M8 3v10M4 9l4 4 4-4",
  flat: "M3 8h10M9 4l4 4-4 4",
  key: "M10.500 1.500a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM7.700 8.300 1.500 14.500M4 12l2 2",
  system: "M1.500 2.500h13v8.500h-13zM5 14h6M8 11v3",
  light: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 .8v1.700M8 13.500v1.700M.8 8h1.700M13.500 8h1.700M2.900 2.900l1.200 1.200M11.900 11.900l1.200 1.200M2.900 13.100l1.200-1.200M11.900 4.100l1.200-1.200",
  dark: "M13.500 9.500A6 6 0 0 1 6.500 2.500a6 6 0 1 0 7 7z",
  back: "M10 3 5 8l5 5",
};

/** A small drawing beside words that say the same. */
export function icon(name) {
  return h("svg", { class: `icon ${name}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, h("path", { d: PATHS[name] }));
}

/** A state in a word, with a shape: colour alone says nothing. */
export function chip(kind, shape, text, title) {
  return h("span", { class: `chip ${kind}`, title }, icon(shape), h("span", {}, text));
}

const STATES = {
  closed: ["good", "ok", "closed"],
  half_open: ["warn", "half", "half-open"],
  open: ["bad", "open", "open"],
};

/** What a circuit does now. */
export function circuitChip(state) {
  const [kind, shape, text] = STATES[state] ?? ["plain", "note", state];
  return chip(kind, shape, text);
}

/** That somebody holds it by hand. */
export function heldChip(override) {
  const until = override.until === null ? "until released" : `until ${moment(override.until)}`;
  return chip("held", "hold", `held ${override.mode}`, `by ${override.actor} ${until}: ${override.reason || "no reason given"}`);
}

/** A titled part of the page that links can lead to. */
export function panel({ id, title, aside = null, note = null }, ...children) {
  return h("section", { class: `panel ${id}`, id: `s-${id}`, key: `panel-${id}`, "aria-labelledby": `t-${id}` },
    h("div", { class: "head" },
      h("h2", { id: `t-${id}`, tabindex: "-1" }, title),
      note && h("span", { class: "note" }, note),
      aside && h("div", { class: "aside" }, aside)),
    ...children);
}

/** What a part says when it has nothing to say. */
export function empty(text) {
  return h("p", { class: "empty" }, text);
}

/** How much is left, as a word for style sheets. */
export function gradeOf(limit) {
  const share = limit.limit ? limit.remaining / limit.limit : 0;
  if (limit.remaining < 1e-9) return "out";
  if (share < 0.1) return "low";
  return share < 0.3 ? "fair" : "good";
}

/** A share of a whole; *grade* is good, fair, low or out. */
export function bar(share, grade, label) {
  const full = Math.max(0, Math.min(1, share));
  return h("div", { class: `bar ${grade}`, role: "meter", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(full * 100)), "aria-valuetext": percent(share) },
    h("div", { class: "fill", style: { width: `${(full * 100).toFixed(2)}%` } }));
}

const SOON = 60;

const WORDS = {
  debt: (f) => ["down", `room in ${about(f.seconds)}`],
  spent: (f) => ["down", `anew in ${about(f.seconds)}`],
  falling: (f) => ["down", f.seconds < 1 ? "almost empty" : `empty in ${about(f.seconds)}`],
  lasts: (f) => ["flat", `lasts ${about(f.seconds)}`],
  rising: (f) => ["up", `full in ${about(f.seconds)}`],
  full: () => [null, "full"],
  held: () => [null, "in use"],
  steady: (f) => ["flat", f.seconds ? `anew in ${about(f.seconds)}` : "steady"],
};

/** When a limit will be exhausted, or full again. */
export function forecastText(found) {
  const [shape, text] = WORDS[found.kind](found);
  const short = found.kind === "falling" && found.seconds < SOON;
  const grade = found.kind === "debt" || found.kind === "spent" ? " now" : short ? " soon" : "";
  return h("span", { class: `forecast${grade}` }, shape && icon(shape), text);
}

/** The last part of a limit's name: its scope stands beside it already. */
export function shortName(limit, prefix) {
  return prefix && limit.name.startsWith(`${prefix}.`) ? limit.name.slice(prefix.length + 1) : limit.name;
}

/** What is unusual about a limit, each as a chip. */
export function limitNotes(limit) {
  const held = limit.override;
  return [
    limit.shadow && chip("plain", "note", "shadow", "Watched and counted; it refuses nobody"),
    held && chip("held", "hold", `held at ${amount(limit.meter, held.limit)}`, `by ${held.actor}: ${held.reason || "no reason given"}; the file says ${amount(limit.meter, limit.configured)}`),
    !held && limit.learned !== null && chip("plain", "note", `learned ${amount(limit.meter, limit.learned)}`, `The provider says so; the file says ${amount(limit.meter, limit.configured)}`),
    limit.share < 1 && chip("warn", "warn", `rate cut to ${percent(limit.share)}`, "The provider refused calls for which there was room"),
  ];
}

/** The cells of a limit's row: name, headroom, figures, forecast. */
export function limitCells(model, { pool, limit, prefix, budget, what }) {
  const grade = gradeOf(limit);
  const samples = model.samples.get(limitKey(pool, limit)) ?? [];
  const figures = limit.meter === "concurrency" ? `${amount(limit.meter, limit.limit - limit.remaining)} of ${amount(limit.meter, limit.limit)} in use` : `${amount(limit.meter, limit.remaining)} of ${amount(limit.meter, limit.limit)}`;
  const share = limit.limit ? limit.remaining / limit.limit : 0;
  return [
    h("th", { class: "limit", scope: "row" },
      h("span", { class: "name" }, shortName(limit, prefix)),
      h("span", { class: "meaning" }, meaning(limit, budget?.per)),
      limitNotes(limit)),
    h("td", { class: "headroom" },
      bar(share, grade, `${what} ${limit.name}: left`),
      h("span", { class: `share ${grade}` }, grade === "out" && icon("open"), grade === "low" && icon("warn"), percent(share))),
    h("td", { class: "figures" }, figures),
    h("td", { class: "when" }, forecastText(forecast(limit, samples, budget))),
  ];
}

/** Two lines without axes: what came of late. */
export function spark(rows, label) {
  const width = 72;
  const height = 18;
  const most = Math.max(1e-9, ...rows.flatMap((row) => row.values));
  const points = (values) => values.map((value, i) => `${((i / Math.max(1, values.length - 1)) * width).toFixed(1)},${(height - 1 - (value / most) * (height - 2)).toFixed(1)}`).join(" ");
  return h("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    rows.map((row) => row.values.length > 1 && row.values.some((value) => value > 0) && h("polyline", { class: row.kind, points: points(row.values) })));
}

/** Something to press. */
export function button(text, onclick, { kind = "", label, shape, ...more } = {}) {
  return h("button", { type: "button", class: `button ${kind}`, onclick, "aria-label": label, ...more }, shape && icon(shape), text && h("span", {}, text));
}
