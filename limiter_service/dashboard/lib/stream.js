// One stream of the service, read for as long as the page is open: with a key in a header, which
// EventSource cannot send, and again whenever it breaks.

import { parser } from "./sse.js";

const SILENCE = 6000; // milliseconds: the service says something every second
const LONGEST = 10_000;

/**
 * Read *url* until stop() is called. *key* returns the API key or null, *message* hears
 * {name, data}, *state* hears {name: "connecting" | "live" | "lost" | "refused", ...}.
 */
export function stream({ url, key, message, state }) {
  let attempts = 0;
  let timer = null;
  let running = null;

  async function connect() {
    clearTimeout(timer);
    running?.abort();
    const mine = (running = new AbortController());
    let heard = null;
    try {
      heard = watchdog(mine);
      const answer = await fetch(url, {
        headers: { accept: "text/event-stream", ...(key() && { authorization: `Bearer ${key()}` }) },
        signal: mine.signal,
        cache: "no-store",
        credentials: "same-origin",
      });
      if (answer.status === 401 || answer.status === 403) return refused(await problemOf(answer));
      if (!answer.ok) throw new Error((await problemOf(answer)).detail);
      await read(answer.body.getReader(), heard);
      throw new Error("the service ended the stream");
    } catch (error) {
      if (mine === running) lost(String(error?.message ?? error));
    } finally {
      heard?.stop();
    }
  }

  async function read(reader, heard) {
    const decoder = new TextDecoder();
    const events = parser();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard.now();
      for (const each of events.push(decoder.decode(value, { stream: true }))) {
        if (attempts !== 0 || each.name === "past") {
          attempts = 0;
          state({ name: "live" });
        }
        message({ name: each.name, data: JSON.parse(each.data) });
      }
    }
  }

  function watchdog(controller) {
    let due = setTimeout(end, SILENCE);
    function end() {
      controller.abort(new Error("the service has said nothing for 6 seconds"));
    }
    return {
      now() {
        clearTimeout(due);
        due = setTimeout(end, SILENCE);
      },
      stop: () => clearTimeout(due),
    };
  }

  function refused(problem) {
    running = null;
    state({ name: "refused", problem });
  }

  function lost(why) {
    attempts += 1;
    const pause = Math.min(LONGEST, 500 * 2 ** attempts) * (0.8 + 0.4 * Math.random());
    timer = setTimeout(connect, pause);
    state({ name: "lost", why, retryAt: Date.now() + pause });
  }

  function again() {
    attempts = 0;
    state({ name: "connecting" });
    connect();
  }

  again();
  return {
    /** Connect now: with another key, or because somebody does not want to wait. */
    again,
    stop() {
      clearTimeout(timer);
      const mine = running;
      running = null;
      mine?.abort();
    },
  };
}

/** The problem that an answer carries, or one made of its status. */
export async function problemOf(answer) {
  try {
    const found = await answer.json();
    if (found && typeof found.detail === "string") return found;
  } catch {
    // not ours: a proxy's page
  }
  return { status: answer.status, code: "", title: "", detail: `the answer has status ${answer.status}` };
}
