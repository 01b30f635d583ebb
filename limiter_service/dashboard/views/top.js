// The head of the page: where we are, whether the figures are live, theme and keys.

import { h } from "../lib/dom.js";
import { duration } from "../lib/format.js";
import { keys } from "../lib/keys.js";
import { button, chip } from "./parts.js";

const SECTIONS = [
  ["pools", "Pools"],
  ["queue", "Queue"],
  ["breakers", "Breakers"],
  ["cost", "Cost"],
  ["events", "Events"],
];

const THEMES = { system: "as the system", light: "light", dark: "dark" };

export function top(model, { askKeys, route }) {
  const theme = globalThis.sluicegateTheme.chosen();
  return [
    h("a", { class: "brand", href: "#/", "aria-label": "Sluicegate, overview" },
      h("img", { src: "dashboard/icon.svg", alt: "", width: "22", height: "22" }),
      h("span", {}, "Sluicegate")),
    h("nav", { "aria-label": "Parts of the overview" },
      SECTIONS.map(([id, text]) => h("a", { href: `#/${id}`, "aria-current": route.section === id ? "true" : undefined }, text))),
    h("div", { class: "tools" },
      connection(model),
      h("a", { class: "button quiet", href: "docs", title: "The HTTP API" }, "API"),
      button("", () => globalThis.sluicegateTheme.next(), { kind: "quiet", shape: theme, label: `Theme: ${THEMES[theme]}. Change`, title: `Theme: ${THEMES[theme]}` }),
      button("", askKeys, { kind: `quiet${keys.known() ? " on" : ""}`, shape: "key", label: keys.known() ? "API keys: known. Change" : "API keys: none. Enter", title: "API keys" })),
  ];
}

function connection(model) {
  const { name } = model.connection;
  if (name === "live" && model.live?.store) return chip("bad", "open", "store lost");
  if (name === "live") return chip("good live", "ok", "live", model.live ? `Version ${model.live.version}; this replica runs for ${duration(model.live.uptime)}` : "");
  if (name === "lost") return chip("bad", "open", "disconnected");
  if (name === "refused") return chip("warn", "key", "key needed");
  return chip("plain", "half", "connecting");
}
