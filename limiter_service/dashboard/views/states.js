// What stands above the figures, or in their place, when something is wrong.

import { h } from "../lib/dom.js";
import { duration, time } from "../lib/format.js";
import { keys } from "../lib/keys.js";
import { button, icon } from "./parts.js";

/** A strip for a service or a store that has gone; null when all is well. */
export function banner(model, { again, now }) {
  const { connection, live } = model;
  if (connection.name === "lost") {
    const pause = Math.max(0, (connection.retryAt - now) / 1000);
    const age = live ? `The figures are from ${time(live.time)}, ${duration((now - model.heardAt) / 1000)} ago.` : "";
    return h("div", { class: "banner bad", key: "banner", role: "alert" }, icon("open"),
      h("div", { class: "words" },
        h("strong", {}, "The service cannot be reached. "),
        h("span", { class: "soft" }, `${age} ${pause >= 0.5 ? `Next attempt in ${Math.ceil(pause)} s.` : "Connecting."}`)),
      button("Connect now", again));
  }
  if (live?.store) {
    return h("div", { class: "banner bad", key: "banner", role: "alert" }, icon("open"),
      h("div", { class: "words" },
        h("strong", {}, "The store does not answer. "),
        h("span", { class: "soft" }, "Pools act as their on_store_loss says; levels, queue and breakers are unknown until it is back.")));
  }
  return null;
}

/** In place of everything: the service wants a key. */
export function keyNeeded(model, { saved }) {
  const { problem } = model.connection;
  const wrong = keys.known();
  return h("section", { class: "gate", key: "gate", "aria-labelledby": "t-gate" },
    icon("key"),
    h("h1", { id: "t-gate" }, wrong ? "This key is not accepted" : "This service asks for a key"),
    h("p", {}, wrong ? problem.detail : "Enter an API key with the role read. It stays in this tab and is forgotten when the tab is closed."),
    h("form", {
      onsubmit(event) {
        event.preventDefault();
        const field = event.target.querySelector("input");
        if (!field.value.trim()) return;
        keys.forget();
        keys.keepRead(field.value);
        field.value = "";
        saved();
      },
    },
      h("label", { for: "gate-key" }, "API key"),
      h("input", { id: "gate-key", type: "password", autocomplete: "off", spellcheck: "false", placeholder: "sg_\u2026", required: true }),
      h("button", { type: "submit", class: "button main" }, "Look")));
}

/** Before the first figures. */
export function loading(model) {
  const lost = model.connection.name === "lost";
  return h("section", { class: "gate", key: "loading" },
    icon(lost ? "open" : "half"),
    h("h1", {}, lost ? "No answer yet" : "Connecting"),
    h("p", {}, lost ? model.connection.why : "The first figures arrive within a second."));
}
