// Dialogs: orders of an operator, and API keys. A reason is required; a key is asked for when the
// service wants one.

import { h, patch } from "../lib/dom.js";
import { keys } from "../lib/keys.js";
import { amount, meaning } from "../lib/format.js";
import { orders } from "../lib/orders.js";

const LIVES = [
  ["300", "5 minutes"],
  ["900", "15 minutes"],
  ["3600", "1 hour"],
  ["28800", "8 hours"],
  ["", "until it is released"],
];

const MODES = [
  ["open", "Open", "refuse every call"],
  ["closed", "Closed", "let every call pass"],
  ["observe", "Observe", "let every call pass, and tell what would have been refused"],
];

/**
 * Show a form of *fields* in a dialog. *send* gets the form's data and returns {ok, problem};
 * the dialog stays open while it is refused, and asks for a key when that is what is missing.
 */
function ask({ title, text, fields, action, danger = false, send, done }) {
  const dialog = document.createElement("dialog");
  let state = { busy: false, problem: null, wantsKey: false };
  document.getElementById("dialogs").append(dialog);

  function draw(change) {
    state = { ...state, ...change };
    patch(dialog, [content()]);
  }

  async function submit(event) {
    event.preventDefault();
    if (state.busy) return;
    const data = new FormData(event.target);
    const key = data.get("key");
    if (key) keys.keepAdmin(key);
    draw({ busy: true, problem: null });
    const answer = await send(data);
    if (answer.ok) {
      dialog.close();
      done?.();
      return;
    }
    const wantsKey = state.wantsKey || [401, 403].includes(answer.problem.status);
    draw({ busy: false, problem: answer.problem, wantsKey });
    if (wantsKey) dialog.querySelector("[name=key]")?.focus();
  }

  function content() {
    return h("form", { onsubmit: submit, "aria-labelledby": "t-dialog" },
      h("h2", { id: "t-dialog" }, title),
      text && h("p", { class: "text" }, text),
      fields(),
      state.wantsKey && h("label", { class: "field", key: "key" }, h("span", {}, "Admin key"),
        h("input", { name: "key", type: "password", autocomplete: "off", spellcheck: "false", placeholder: "sg_\u2026", required: true }),
        h("span", { class: "hint" }, "Kept in this tab until it is closed.")),
      state.problem && h("p", { class: "problem", role: "alert", key: "problem" }, refusalOf(state.problem)),
      h("div", { class: "buttons", key: "buttons" },
        h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Cancel"),
        h("button", { type: "submit", class: `button ${danger ? "danger" : "main"}`, disabled: state.busy }, state.busy ? "Sending" : action)));
  }

  draw({});
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
  return dialog;
}

function refusalOf(problem) {
  if (problem.status === 401) return "Refused: this needs an API key with the role admin.";
  if (problem.status === 403) return `Refused: ${problem.detail || "the key has not the role admin"}.`;
  if (problem.code === "generation_conflict") return "The circuit has changed since you looked. Look at it again, then repeat the order if it still fits.";
  return problem.detail || `Refused with status ${problem.status}.`;
}

function reasonField() {
  return h("label", { class: "field" }, h("span", {}, "Reason"),
    h("input", { name: "reason", type: "text", required: true, maxlength: "500", autocomplete: "off", placeholder: "what you see, or a ticket" }),
    h("span", { class: "hint" }, "Told in events and to whoever looks."));
}

function lifeField() {
  return h("label", { class: "field" }, h("span", {}, "For"),
    h("select", { name: "ttl" }, LIVES.map(([value, text]) => h("option", { value, selected: value === "900" }, text))));
}

function lifeOf(data) {
  return data.get("ttl") ? Number(data.get("ttl")) : null;
}

/** Hold the circuit of *view* by hand. */
export function holdCircuit(view, done) {
  ask({
    title: `Override ${view.resource}`,
    text: "For the whole fleet, from the next call on.",
    action: "Override",
    danger: true,
    done,
    fields: () => [
      h("fieldset", { class: "modes" }, h("legend", {}, "Hold the circuit"),
        MODES.map(([value, name, meant]) =>
          h("label", { class: "mode" },
            h("input", { type: "radio", name: "mode", value, required: true, checked: value === view.override?.mode }),
            h("span", {}, h("strong", {}, name), h("span", { class: "hint" }, meant))))),
      lifeField(),
      reasonField(),
    ],
    send: (data) =>
      orders.hold(view.resource, {
        mode: data.get("mode"),
        ttl: lifeOf(data),
        reason: data.get("reason").trim(),
        expected_generation: view.generation,
      }),
  });
}

/** Hold a limit of *view* to another value. */
export function holdLimit(view, limit, done) {
  ask({
    title: `Hold ${limit.name}`,
    text: `${view.resource}: ${meaning(limit)}. The file says ${amount(limit.meter, limit.configured)}.`,
    action: "Hold",
    danger: true,
    done,
    fields: () => [
      h("label", { class: "field" }, h("span", {}, "Limit"),
        h("input", { name: "limit", type: "number", min: "0.000001", step: "any", required: true, value: String(limit.override?.limit ?? limit.limit), inputmode: "decimal" })),
      lifeField(),
      reasonField(),
    ],
    send: (data) =>
      orders.holdLimit(view.resource, limit.name, view.tenant, {
        limit: Number(data.get("limit")),
        ttl: lifeOf(data),
        reason: data.get("reason").trim(),
      }),
  });
}

/** Confirm an order that needs no words. */
export function confirm({ title, text, action, send, done }) {
  ask({ title, text, action, fields: () => [], send, done });
}

/** Enter or forget API keys. */
export function askKeys(done) {
  const dialog = ask({
    title: "API keys",
    text: "They stay in this tab and are forgotten when it is closed.",
    action: "Keep",
    done,
    fields: () => [
      h("label", { class: "field" }, h("span", {}, "Key to look with"),
        h("input", { name: "read", type: "password", autocomplete: "off", spellcheck: "false", placeholder: keys.read() ? "known" : "sg_\u2026" }),
        h("span", { class: "hint" }, "Needs the role read.")),
      h("label", { class: "field" }, h("span", {}, "Key to act with"),
        h("input", { name: "admin", type: "password", autocomplete: "off", spellcheck: "false", placeholder: "sg_\u2026" }),
        h("span", { class: "hint" }, "Needs the role admin; asked for when an order wants it.")),
      keys.known() && h("button", { type: "button", class: "button", onclick: () => { keys.forget(); dialog.close(); done(); } }, "Forget both"),
    ],
    send: (data) => {
      if (data.get("read")) keys.keepRead(data.get("read"));
      if (data.get("admin")) keys.keepAdmin(data.get("admin"));
      return Promise.resolve({ ok: true });
    },
  });
}
