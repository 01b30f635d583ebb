// Grants and refusals over the last quarter of an hour.

import { rate, tick } from "../lib/format.js";
import { trafficSeries } from "../model.js";
import { chart } from "./chart.js";

const NAMES = { granted: "granted", no_room: "no room", stopped: "stopped", failed: "failed" };

/** Of one resource, or of all of them. */
export function trafficChart(model, resource = null) {
  const found = trafficSeries(model, resource);
  const series = Object.entries(NAMES).map(([kind, name]) => ({ name, kind, values: found[kind], fill: kind === "granted" }));
  const now = series.map((each) => `${each.name} ${rate(each.values.at(-1) ?? 0)}`).join(", ");
  return chart({
    key: `traffic-${resource}`,
    times: found.times,
    series,
    format: rate,
    ticks: tick,
    now: model.live.time,
    label: `Acquires per second over the last 15 minutes. At present: ${now}.`,
  });
}
