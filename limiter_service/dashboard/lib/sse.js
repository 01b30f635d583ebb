// Server-sent events out of text that arrives in pieces.

/** A parser; push() returns the events that are complete. */
export function parser() {
  let rest = "";
  let event = { name: "message", data: [] };

  function take(line) {
    if (line === "") {
      const done = event;
      event = { name: "message", data: [] };
      return done.data.length ? { name: done.name, data: done.data.join("\n") } : null;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event.name = value;
    if (field === "data") event.data.push(value);
    return null;
  }

  return {
    push(text) {
      const lines = (rest + text).split(/\r?\n/);
      rest = lines.pop();
      return lines.map(take).filter((each) => each !== null);
    },
  };
}
