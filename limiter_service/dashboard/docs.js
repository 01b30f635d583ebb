// The page of the HTTP API: reads the OpenAPI document once, shows every operation, and sends calls.

import { patch } from "./lib/dom.js";
import { keys } from "./lib/keys.js";
import { groups } from "./lib/openapi.js";
import { problemOf } from "./lib/stream.js";
import { askKeys } from "./views/dialog.js";
import { contents, head } from "./views/operations.js";
import { keyNeeded } from "./views/states.js";

const DOCUMENT = "openapi.json";

const state = { doc: null, groups: [], problem: null, answers: new Map() };
const top = document.getElementById("top");
const main = document.getElementById("main");

function draw() {
  patch(top, head({ known: keys.known(), askKeys: () => askKeys(read) }));
  if (state.problem) patch(main, [keyNeeded({ connection: { problem: state.problem } }, { saved: read })]);
  else if (state.doc) patch(main, contents(state, { send }));
}

async function read() {
  const key = keys.read();
  const answer = await fetch(DOCUMENT, { headers: key ? { authorization: `Bearer ${key}` } : {}, cache: "no-store" });
  const first = state.doc === null;
  if (answer.ok) {
    state.doc = await answer.json();
    state.groups = groups(state.doc);
    state.problem = null;
  } else {
    state.problem = await problemOf(answer);
  }
  draw();
  if (first && state.doc) arrive();
}

/** Send a call as *form* says, and show what is answered. */
async function send(operation, form) {
  const call = operation.call(new FormData(form));
  const key = operation.roles.includes("admin") ? keys.admin() : keys.read();
  if (key) call.headers.authorization = `Bearer ${key}`;
  state.answers.set(operation.id, { busy: true });
  draw();
  const began = performance.now();
  try {
    const answer = await fetch(call.path, { method: operation.method, headers: call.headers, body: call.body, cache: "no-store" });
    const text = await answer.text();
    const took = performance.now() - began;
    state.answers.set(operation.id, { status: answer.status, kind: answer.headers.get("content-type") ?? "", text, took });
  } catch (error) {
    state.answers.set(operation.id, { status: null, kind: "", text: String(error.message), took: performance.now() - began });
  }
  draw();
}

/** A link to an operation leads to it, also when the document comes after the page. */
function arrive() {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  found?.closest("details")?.setAttribute("open", "");
  found?.scrollIntoView();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", arrive);
addEventListener("themechange", draw);
draw();
read().catch((error) => {
  state.problem = { status: 0, detail: `The document cannot be read: ${error.message}` };
  draw();
});
