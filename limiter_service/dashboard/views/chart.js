// Lines over the last minutes, drawn by uPlot; words beside them say the present values.

import { h } from "../lib/dom.js";
import { minute } from "../lib/format.js";

const SPAN = 15 * 60;

/**
 * A chart of *series*, [{name, kind, values, fill}], over *times*. *format* says a value in words,
 * *label* the whole in words, *ticks* a value on the axis. *top* is the top of the axis, where it is fixed.
 */
export function chart({ key, times, series, format, label, top = null, now, ticks }) {
  const state = { times, series, format, top, now, ticks };
  return h("figure", { class: "chart", key },
    h("div", { class: "canvas", role: "img", "aria-label": label, hook: hookOf(state) }),
    h("figcaption", {}, series.map((each) =>
      h("span", { class: "legend" },
        h("span", { class: `line ${each.kind}` }),
        h("span", { class: "what" }, each.name),
        h("span", { class: "value" }, lastOf(each.values, format))))));
}

function lastOf(values, format) {
  const last = values.at(-1);
  return last === null || last === undefined ? "\u2013" : format(last);
}

function hookOf(state) {
  return {
    create(node) {
      node.sgDraw = () => draw(node, node.sgState);
      node.sgState = state;
      addEventListener("themechange", node.sgDraw);
      node.sgSizes = new ResizeObserver(() => node.sgPlot?.setSize(sizeOf(node)));
      node.sgSizes.observe(node);
    },
    update(node) {
      const same = node.sgPlot && namesOf(node.sgState) === namesOf(state);
      node.sgState = state;
      if (!same) draw(node, state);
      else {
        const data = dataOf(state);
        node.sgPlot.setData(data, false);
        node.sgPlot.setScale("x", { min: state.now - SPAN, max: state.now });
        node.sgPlot.setScale("y", { min: 0, max: topOf(state) });
      }
    },
    remove(node) {
      removeEventListener("themechange", node.sgDraw);
      node.sgSizes?.disconnect();
      node.sgPlot?.destroy();
      node.sgPlot = null;
    },
  };
}

function namesOf(state) {
  return state.series.map((each) => `${each.name} ${each.kind}`).join("\n");
}

function dataOf(state) {
  return [state.times, ...state.series.map((each) => each.values)];
}

function topOf(state) {
  if (state.top !== null) return state.top;
  const most = Math.max(1, ...state.series.flatMap((each) => each.values.filter((value) => value !== null)));
  const size = 10 ** Math.floor(Math.log10(most * 1.1));
  return [1, 2, 5, 10].map((step) => step * size).find((top) => top >= most * 1.1);
}

function sizeOf(node) {
  return { width: Math.max(160, node.clientWidth), height: Math.max(80, node.clientHeight) };
}

/** A colour of the style sheet as the canvas takes it. */
function colour(node, name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  node.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const DASHES = { no_room: [5, 3], stopped: [2, 3], failed: [8, 3, 2, 3], "level-1": [5, 3], "level-2": [2, 3], "level-3": [8, 3, 2, 3] };

function draw(node, state) {
  node.sgPlot?.destroy();
  const font = "11px system-ui, sans-serif";
  const axis = { stroke: colour(node, "muted"), font, grid: { stroke: colour(node, "grid"), width: 1 }, ticks: { show: false } };
  const options = {
    ...sizeOf(node),
    padding: [8, 16, 0, 0],
    legend: { show: false },
    cursor: { x: true, y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: false, auto: false, range: () => [node.sgState.now - SPAN, node.sgState.now] }, y: { auto: false, range: () => [0, topOf(node.sgState)] } },
    axes: [
      { ...axis, space: 70, size: 26, incrs: [60, 120, 180, 300, 600], values: (_, values) => values.map(minute) },
      { ...axis, size: 40, space: 26, values: (_, values) => values.map((value) => (state.ticks ?? state.format)(value)) },
    ],
    series: [
      {},
      ...state.series.map((each) => ({
        stroke: colour(node, each.kind),
        fill: each.fill ? colour(node, `${each.kind}-fill`) : undefined,
        width: 1.5,
        dash: DASHES[each.kind],
        points: { show: false },
        spanGaps: false,
      })),
    ],
    hooks: { setCursor: [(plot) => point(node, plot)] },
  };
  node.sgPlot = new uPlot(options, dataOf(state), node);
}

/** While a pointer is over the chart the legend tells that moment. */
function point(node, plot) {
  const { series, format, times } = node.sgState;
  const values = node.parentElement?.querySelectorAll(".legend .value") ?? [];
  const at = plot.cursor.idx;
  node.parentElement?.classList.toggle("pointed", at !== null && at !== undefined);
  series.forEach((each, i) => {
    if (!values[i]?.firstChild) return;
    const value = at === null || at === undefined ? each.values.at(-1) : each.values[at];
    const text = value === null || value === undefined ? "\u2013" : format(value);
    values[i].firstChild.data = at === null || at === undefined ? text : `${text} at ${minute(times[at])}`;
  });
}
