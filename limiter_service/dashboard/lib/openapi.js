// The OpenAPI document in the shape in which the page shows it. Pure.

const METHODS = ["get", "post", "put", "delete"];
const FIRST = "budget"; // what every caller uses
const WORDS = { string: "text", integer: "whole number", number: "number", boolean: "true or false", null: "none", object: "map", array: "list" };

/** Operations by their tag: [{tag, operations}]. */
export function groups(doc) {
  const found = new Map();
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const method of METHODS.filter((each) => item[each])) {
      const tag = item[method].tags?.[0] ?? "other";
      found.set(tag, [...(found.get(tag) ?? []), operationOf(doc, path, method, item[method])]);
    }
  }
  const order = (tag) => (tag === FIRST ? "" : tag);
  return [...found].sort(([a], [b]) => order(a).localeCompare(order(b))).map(([tag, operations]) => ({ tag, operations }));
}

function operationOf(doc, path, method, said) {
  const streams = Object.keys(said.responses["200"]?.content ?? {}).includes("text/event-stream");
  const parameters = (said.parameters ?? []).map((each) => parameterOf(doc, each, streams));
  const body = bodyOf(doc, said.requestBody);
  const answers = Object.entries(said.responses).map(([status, each]) => answerOf(status, each));
  const operation = {
    id: `${method}-${path.replace(/[^a-z0-9]+/gi, "-").replace(/^-|-$/g, "")}`,
    method: method.toUpperCase(),
    path,
    summary: said.summary ?? "",
    text: said.description ?? "",
    roles: [...new Set((said.security ?? []).flatMap((each) => Object.values(each).flat()))],
    open: said.security === undefined,
    parameters,
    body,
    answers: answers.filter((each) => each.schema?.name !== "Problem"),
    problems: answers.filter((each) => each.schema?.name === "Problem"),
  };
  return { ...operation, call: (data) => callOf(operation, data) };
}

function parameterOf(doc, each, streams) {
  const fallback = each.schema?.default;
  const value = streams && each.name === "follow" ? "false" : ""; // a form waits for the end
  return { name: each.name, place: each.in, required: each.required === true, type: typeOf(doc, each.schema ?? {}), text: each.description ?? "", fallback, value };
}

function bodyOf(doc, body) {
  if (!body) return null;
  const [first] = Object.values(body.content);
  return {
    kinds: Object.keys(body.content),
    schema: named(first.schema),
    example: JSON.stringify(first.example ?? exampleOf(doc, first.schema), null, 2),
  };
}

function answerOf(status, said) {
  const content = Object.entries(said.content ?? {});
  return { status, text: said.description ?? "", kinds: content.map(([kind]) => kind), schema: content.length ? named(content[0][1].schema) : null };
}

function named(schema) {
  const all = (schema.oneOf ?? schema.anyOf ?? [schema]).map((each) => (each.$ref ?? "").split("/").at(-1)).filter(Boolean);
  return all.length ? { name: all[0], all } : null;
}

/** What a reference leads to. */
export function resolve(doc, schema) {
  if (!schema?.$ref) return schema ?? {};
  return doc.components.schemas[schema.$ref.split("/").at(-1)] ?? {};
}

/** A type as text and links: ["list of ", {ref: "LimitState"}]. */
export function typeOf(doc, schema) {
  if (schema.$ref) {
    const found = resolve(doc, schema);
    return found.enum ? [found.enum.join(", ")] : [{ ref: schema.$ref.split("/").at(-1) }];
  }
  const either = schema.anyOf ?? schema.oneOf;
  if (either) return either.flatMap((each, i) => [...(i ? [" or "] : []), ...typeOf(doc, each)]);
  if (schema.enum) return [schema.enum.map(String).join(", ")];
  if ("const" in schema) return [String(schema.const)];
  if (schema.type === "array") return ["list of ", ...typeOf(doc, schema.items ?? {})];
  if (schema.additionalProperties?.type || schema.additionalProperties?.$ref) return ["map to ", ...typeOf(doc, schema.additionalProperties)];
  return [(WORDS[schema.type] ?? "anything") + range(schema)];
}

function range({ minimum: least, maximum: most, maxLength: longest }) {
  if (longest !== undefined) return `, at most ${longest} characters`;
  if (least !== undefined && most !== undefined) return `, ${least} to ${most}`;
  if (least !== undefined) return `, ${least} or more`;
  return most === undefined ? "" : `, at most ${most}`;
}

/** The fields of an object: [{name, type, required, fallback}]. */
export function fieldsOf(doc, schema) {
  const found = resolve(doc, schema);
  const required = new Set(found.required ?? []);
  return Object.entries(found.properties ?? {}).map(([name, each]) => ({
    name,
    type: typeOf(doc, each),
    text: each.description ?? "",
    required: required.has(name),
    fallback: each.default,
  }));
}

/** A value of the least fields that *schema* asks for. */
export function exampleOf(doc, schema, depth = 0) {
  const found = resolve(doc, schema);
  if (found.examples?.length) return found.examples[0];
  if (found.default !== undefined && found.default !== null) return found.default;
  if (found.enum) return found.enum[0];
  if ("const" in found) return found.const;
  const either = found.anyOf ?? found.oneOf;
  if (either) return exampleOf(doc, either[0], depth);
  if (found.type === "array") return found.minItems && depth < 4 ? [exampleOf(doc, found.items ?? {}, depth + 1)] : [];
  if (found.type === "integer" || found.type === "number") return found.minimum ?? 1;
  if (found.type === "boolean") return false;
  if (found.type === "string") return "";
  const wanted = depth < 4 ? (found.required ?? []) : [];
  return Object.fromEntries(wanted.map((name) => [name, exampleOf(doc, found.properties[name], depth + 1)]));
}

/** A call as a form says: {path, headers, body}. */
function callOf(operation, data) {
  let path = operation.path.slice(1);
  const query = new URLSearchParams();
  const headers = { accept: "application/json" };
  for (const { name, place } of operation.parameters) {
    const value = data.get(`${place}.${name}`) ?? "";
    if (place === "path") path = path.replace(`{${name}}`, value.split("/").map(encodeURIComponent).join("/"));
    else if (value && place === "query") query.set(name, value);
    else if (value) headers[name] = value;
  }
  if (operation.body) headers["content-type"] = "application/json";
  const body = operation.body ? data.get("body") : undefined;
  return { path: `${path}${query.size ? `?${query}` : ""}`, headers, body };
}

/** The call as a command line for *base*. */
export function curlOf(operation, base) {
  const words = ["curl -s"];
  if (operation.method !== "GET") words.push(`-X ${operation.method}`);
  words.push(`${base}${operation.path.slice(1)}`);
  if (!operation.open) words.push("-H 'authorization: Bearer sg_...'");
  if (operation.body) words.push("-H 'content-type: application/json'", `-d '${JSON.stringify(JSON.parse(operation.body.example))}'`);
  return words.join(" \\\n  ");
}
