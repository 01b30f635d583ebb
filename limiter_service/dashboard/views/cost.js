// Budgets with their forecast, and what calls have cost.

import { h } from "../lib/dom.js";
import { amount, compact, count, duration, money, pace, plural } from "../lib/format.js";
import { hrefOf } from "../attention.js";
import { budgetsOf } from "../model.js";
import { bar, chip, empty, panel } from "./parts.js";

const MOST = 10;

export function cost(model) {
  const budgets = budgetsOf(model.live);
  const costs = model.stats?.costs ?? [];
  return panel({ id: "cost", title: "Cost and budgets" },
    budgets.length ? h("div", { class: "budgets" }, budgets.map(budget)) : empty("No budget is configured: a limit in a calendar window is one."),
    costs.length ? table(costs) : empty("No call was settled with its usage yet."));
}

function budget(each) {
  const share = each.limit ? each.spent / each.limit : 0;
  const spent = each.spent >= each.limit;
  const grade = spent ? "out" : each.exhausted_in !== null ? "low" : "good";
  const speed = each.per_hour === null ? "pace not known yet" : pace(each.meter, each.per_hour);
  const forecast = spent
    ? chip("bad", "open", `spent; anew in ${duration(each.resets_in)}`)
    : each.exhausted_in !== null
      ? chip("warn", "warn", `exhausted in ${duration(each.exhausted_in)}`)
      : chip("good", "ok", "lasts");
  return h("div", { class: "budget", key: `${each.pool} ${each.name}` },
    h("div", { class: "line" }, h("span", { class: "name" }, each.name), h("span", { class: "meaning" }, `per ${each.per}${each.shadow ? ", shadow" : ""}`), h("span", { class: "gap" }), forecast),
    bar(share, grade, `${each.name}: spent`),
    h("div", { class: "line" },
      h("span", { class: "figures" }, `${amount(each.meter, each.spent)} of ${amount(each.meter, each.limit)}`),
      h("span", { class: "meaning" }, speed),
      h("span", { class: "gap" }),
      h("span", { class: "meaning" }, `begins anew in ${duration(each.resets_in)}`)));
}

/** What settled calls have used, the dearest first. */
export function table(costs) {
  const shown = costs.slice(0, MOST);
  const total = costs.reduce((sum, each) => sum + each.cost_usd, 0);
  const unpriced = costs.reduce((sum, each) => sum + each.unpriced_calls, 0);
  return h("div", { class: "scroll" },
    h("table", { class: "plain stacked costs" },
      h("caption", { class: "unseen" }, "Cost by resource and tenant"),
      h("thead", {}, h("tr", {}, ["Resource, tenant", "Calls", "Input", "Output", "Cost"].map((text, i) => h("th", { scope: "col", class: i > 0 ? "number" : "" }, text)))),
      h("tbody", {}, shown.map((each) => h("tr", { key: `${each.resource} ${each.tenant}` },
        h("th", { scope: "row" },
          each.resource.includes("/") ? h("a", { href: hrefOf(each.resource) }, each.resource) : each.resource,
          h("span", { class: "meaning" }, each.tenant)),
        h("td", { class: "number", "data-name": "calls" }, count(each.calls)),
        h("td", { class: "number", "data-name": "input tokens" }, compact(each.input_tokens)),
        h("td", { class: "number", "data-name": "output tokens" }, compact(each.output_tokens)),
        h("td", { class: "number strong", "data-name": "cost" }, each.unpriced_calls === each.calls ? "no price" : money(each.cost_usd)))))),
    h("p", { class: "note" }, `${money(total)} in the last hour${unpriced ? `; ${plural(unpriced, "call")} without a price` : ""}${costs.length > MOST ? `; ${plural(costs.length - MOST, "smaller row")}` : ""}.`));
}
