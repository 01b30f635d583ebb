// What an operator can order: hold a circuit or a limit, let go of it, reset.

import { keys } from "./keys.js";
import { problemOf } from "./stream.js";

/** {ok: true} or {ok: false, problem}. */
async function send(method, path, body) {
  const headers = { accept: "application/json" };
  if (body) headers["content-type"] = "application/json";
  if (keys.admin()) headers.authorization = `Bearer ${keys.admin()}`;
  try {
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
    return answer.ok ? { ok: true } : { ok: false, problem: await problemOf(answer) };
  } catch (error) {
    return { ok: false, problem: { status: 0, code: "", detail: `the service cannot be reached: ${error.message}` } };
  }
}

function path(kind, resource, ...rest) {
  return ["v1", kind, ...resource.split("/").map(encodeURIComponent), ...rest.map(encodeURIComponent)].join("/");
}

export const orders = {
  hold: (resource, order) => send("PUT", path("breakers", resource, "override"), order),
  release: (resource) => send("DELETE", path("breakers", resource, "override")),
  reset: (resource) => send("POST", path("breakers", resource, "reset")),
  holdLimit: (resource, name, tenant, order) =>
    send("PUT", `${path("limits", resource, name, "override")}?tenant=${encodeURIComponent(tenant)}`, order),
  releaseLimit: (resource, name, tenant) =>
    send("DELETE", `${path("limits", resource, name, "override")}?tenant=${encodeURIComponent(tenant)}`),
};
