// Views say how the page should look; patch() changes only what differs, so that focus, selection
// and open details survive an update every second. No markup from text anywhere.

const SVG = "http://www.w3.org/2000/svg";

/** One element as a view wants it. Children may be nested arrays; null and false are left out. */
export function h(tag, props, ...children) {
  return {
    tag,
    props: props ?? {},
    children: children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map((child) => (typeof child === "object" ? child : String(child))),
  };
}

/** Make the children of *parent* what *wanted* says. */
export function patch(parent, wanted) {
  const keyed = new Map();
  for (const node of parent.childNodes) {
    if (node.sgKey !== undefined) keyed.set(node.sgKey, node);
  }
  const stay = new Set(wanted.map((child) => keyed.get(child.props?.key)));
  let at = parent.firstChild;
  for (const child of wanted) {
    while (at && at.sgKey !== undefined && !stay.has(at)) at = removed(at);
    if (typeof child === "string") {
      at = patchText(parent, at, child);
      continue;
    }
    const found = match(child, keyed, at);
    if (found && found !== at) parent.insertBefore(found, at);
    const node = found ?? parent.insertBefore(create(child, parent), at);
    if (found === at && at) at = at.nextSibling;
    update(node, child);
  }
  while (at) at = removed(at);
}

function removed(node) {
  const next = node.nextSibling;
  node.sgHook?.remove?.(node);
  for (const inner of node.querySelectorAll?.("*") ?? []) inner.sgHook?.remove?.(inner);
  node.remove();
  return next;
}

function patchText(parent, at, text) {
  if (at?.nodeType === Node.TEXT_NODE) {
    if (at.data !== text) at.data = text;
    return at.nextSibling;
  }
  parent.insertBefore(document.createTextNode(text), at);
  return at;
}

function match(child, keyed, at) {
  if (child.props.key !== undefined) {
    const found = keyed.get(child.props.key);
    return found?.localName === child.tag ? found : undefined;
  }
  const fits = at?.nodeType === Node.ELEMENT_NODE && at.localName === child.tag;
  return fits && at.sgKey === undefined ? at : undefined;
}

function create(child, parent) {
  const drawing = child.tag === "svg" || parent.namespaceURI === SVG;
  const node = drawing ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
  node.sgKey = child.props.key;
  node.sgProps = {};
  return node;
}

function update(node, child) {
  const { hook } = child.props;
  const fresh = !node.sgDrawn;
  for (const name of Object.keys(node.sgProps)) {
    if (!(name in child.props)) set(node, name, undefined, node.sgProps[name]);
  }
  for (const [name, value] of Object.entries(child.props)) {
    if (node.sgProps[name] !== value) set(node, name, value, node.sgProps[name]);
  }
  node.sgProps = child.props;
  node.sgDrawn = true;
  if (!hook) return patch(node, child.children);
  node.sgHook = hook;
  if (fresh) hook.create?.(node);
  hook.update?.(node);
}

function set(node, name, value, before) {
  if (name === "key" || name === "hook") return;
  if (name.startsWith("on")) listen(node, name.slice(2), value);
  else if (name === "style") {
    for (const each of Object.keys(before ?? {})) if (!(each in (value ?? {}))) node.style.removeProperty(each);
    for (const [each, text] of Object.entries(value ?? {})) node.style.setProperty(each, text);
  } else if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}

function listen(node, kind, handler) {
  node.sgHandlers ??= {};
  if (!(kind in node.sgHandlers)) {
    node.addEventListener(kind, (event) => node.sgHandlers[kind]?.(event));
  }
  node.sgHandlers[kind] = handler;
}
