// The HTTP API: every operation with its fields and answers, a call to try, and the types.

import { h } from "../lib/dom.js";
import { curlOf, fieldsOf } from "../lib/openapi.js";
import { button } from "./parts.js";

const THEMES = { system: "as the system", light: "light", dark: "dark" };

export function head({ known, askKeys }) {
  const theme = globalThis.sluicegateTheme.chosen();
  return [
    h("a", { class: "brand", href: "./", "aria-label": "Sluicegate, dashboard" },
      h("img", { src: "dashboard/icon.svg", alt: "", width: "22", height: "22" }),
      h("span", {}, "Sluicegate")),
    h("nav", { "aria-label": "Pages" },
      h("a", { href: "./" }, "Dashboard"),
      h("a", { href: "docs", "aria-current": "page" }, "HTTP API")),
    h("div", { class: "tools" },
      button("", () => globalThis.sluicegateTheme.next(), { kind: "quiet", shape: theme, label: `Theme: ${THEMES[theme]}. Change`, title: `Theme: ${THEMES[theme]}` }),
      button("", askKeys, { kind: `quiet${known ? " on" : ""}`, shape: "key", label: known ? "API keys: known. Change" : "API keys: none. Enter", title: "API keys" })),
  ];
}

export function contents({ doc, groups, answers }, { send }) {
  return [
    h("h1", { key: "h1" }, `${doc.info.title} ${doc.info.version}: HTTP API`),
    h("p", { class: "note", key: "intro" }, `${doc.info.description} JSON in and out, where it says so also msgpack; times are seconds. Refusals are problems with a code.`),
    ...groups.map(({ tag, operations }) =>
      h("section", { class: "panel group", key: tag, "aria-labelledby": `t-${tag}` },
        h("div", { class: "head" }, h("h2", { id: `t-${tag}` }, tag)),
        operations.map((each) => operation(doc, each, answers.get(each.id), send)))),
    types(doc),
  ];
}

function operation(doc, it, answer, send) {
  return h("details", { class: "operation", key: it.id },
    h("summary", { id: it.id },
      h("span", { class: `method ${it.method.toLowerCase()}` }, it.method),
      h("code", { class: "path" }, it.path),
      h("span", { class: "what" }, it.summary)),
    h("div", { class: "inside" },
      it.text && paragraphs(it.text),
      h("p", { class: "note" }, it.open ? "Open to everybody." : it.roles.length ? `Takes a key with the role ${it.roles.join(" or ")}.` : "Takes any key."),
      it.parameters.length > 0 && table("Parameters", ["Name", "In", "Type", "Meaning"], it.parameters.map((each) => [name(each), each.place, type(each.type), meaning(each)])),
      it.body && h("p", {}, "Body: ", link(it.body.schema), `, as ${it.body.kinds.join(" or ")}.`),
      table("Answers", ["Status", "Meaning", "Type"], it.answers.map((each) => [each.status, each.text, each.schema ? each.schema.all.map((one, i) => [i ? ", " : "", link({ name: one })]) : each.kinds.join(", ")])),
      it.problems.length > 0 && h("p", { class: "note" }, "Problems: ", it.problems.map((each, i) => `${i ? "; " : ""}${each.status} ${each.text}`), "."),
      h("h3", {}, "On the command line"),
      h("pre", { class: "code", tabindex: "0", "aria-label": `Command for ${it.method} ${it.path}` }, curlOf(it, new URL("./", location.href).href)),
      attempt(it, answer, send)));
}

function attempt(it, answer, send) {
  return h("form", {
    class: "attempt",
    "aria-label": `Call ${it.method} ${it.path}`,
    onsubmit(event) {
      event.preventDefault();
      send(it, event.target);
    },
  },
    h("h3", {}, "Call it here"),
    it.parameters.map((each) => h("label", { class: "field" },
      h("span", {}, each.name),
      h("input", { name: `${each.place}.${each.name}`, type: "text", required: each.required, autocomplete: "off", spellcheck: "false", value: each.value, placeholder: shown(each.fallback) }))),
    it.body && h("label", { class: "field" }, h("span", {}, "Body"),
      h("textarea", { name: "body", rows: String(Math.min(14, it.body.example.split("\n").length + 1)), spellcheck: "false", autocomplete: "off" }, it.body.example)),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: `button ${it.method === "GET" ? "main" : "danger"}`, disabled: answer?.busy === true }, answer?.busy ? "Sending" : `Send ${it.method}`)),
    h("div", { role: "status" }, answer && !answer.busy && result(answer)));
}

function result({ status, kind, text, took }) {
  return h("div", { class: "result" },
    h("p", {}, h("strong", {}, status === null ? "No answer" : `Status ${status}`), h("span", { class: "meaning" }, ` ${Math.round(took)} ms ${kind}`)),
    h("pre", { class: "code", tabindex: "0", "aria-label": "What was answered" }, pretty(text, kind)));
}

function pretty(text, kind) {
  if (!kind.includes("json")) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function types(doc) {
  const found = Object.entries(doc.components.schemas).filter(([, each]) => each.properties || each.enum);
  return h("section", { class: "panel group", key: "types", "aria-labelledby": "t-types" },
    h("div", { class: "head" }, h("h2", { id: "t-types" }, "types")),
    found.map(([title, each]) => h("details", { class: "operation", key: `type-${title}` },
      h("summary", { id: `type-${title}` }, h("code", { class: "path" }, title)),
      h("div", { class: "inside" },
        each.description && paragraphs(each.description),
        each.enum
          ? h("p", {}, each.enum.join(", "))
          : table("Fields", ["Field", "Type", "Otherwise"], fieldsOf(doc, each).map((one) => [name(one), type(one.type), one.required ? "required" : shown(one.fallback)]))))));
}

function table(caption, heads, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    h("table", { class: "plain" },
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((each) => h("td", {}, each)))))));
}

function name(each) {
  return [h("code", {}, each.name), each.required && h("span", { class: "meaning" }, "required")];
}

function meaning(each) {
  const plain = each.required || [undefined, null, ""].includes(each.fallback);
  return plain ? each.text : `${each.text}; otherwise ${shown(each.fallback)}`;
}

function type(parts) {
  return parts.map((each) => (typeof each === "string" ? each : link({ name: each.ref })));
}

function link(schema) {
  return schema ? h("a", { href: `#type-${schema.name}` }, schema.name) : "anything";
}

function shown(value) {
  if (value === undefined || value === null || value === "") return "none";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function paragraphs(text) {
  return text.split(/\n\n+/).map((each) => h("p", {}, each.replaceAll("\n", " ")));
}
