"""The page's own modules: what is pure is tried with values."""

import random
from typing import Any

import pytest


@pytest.fixture(scope="module")
def module(browser: Any, running: Any) -> Any:
    """Evaluate an expression over the exports of a module."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(running[1] + "/")

    def evaluate(name: str, expression: str, argument: object = None) -> Any:
        code = f"async (given) => {{ const it = await import('/dashboard/{name}');"
        return page.evaluate(f"{code} return {expression}; }}", argument)

    yield evaluate
    context.close()


BUCKET = {"meter": "tokens", "window": "bucket", "limit": 1000, "reset_after": 30}


@pytest.mark.parametrize(
    ("remaining", "samples", "kind", "seconds"),
    [
        (1000, [], "full", None),
        (500, [], "rising", 30),
        (500, [[t, 600 - 10 * t] for t in range(11)], "falling", 50),
        (500, [[t, 400 + 10 * t] for t in range(11)], "rising", 50),
        (500, [[t, 500] for t in range(11)], "steady", None),
        (0, [[t, 0] for t in range(11)], "debt", 0),
        (-500, [[t, -500] for t in range(11)], "debt", 10),
    ],
)
def test_a_limit_has_a_forecast(
    module: Any, remaining: float, samples: list[list[float]], kind: str, seconds: float | None
):
    """By the line through its last levels."""
    limit = BUCKET | {"remaining": remaining}
    found = module("lib/forecast.js", "it.forecast(given[0], given[1])", [limit, samples])
    assert found["kind"] == kind
    assert found["seconds"] == (None if seconds is None else pytest.approx(seconds))


def test_events_are_read_however_their_bytes_are_cut(module: Any):
    """Also between the two characters of a line's end, and with comments between them."""
    text = (
        'retry: 2000\r\n\r\nevent: a\ndata: {"x":\ndata: 1}\n\n: still\n\ndata: two\r\n\r\n'
        "event: b\ndata: z\n\nevent: c\ndata: cut"
    )
    wanted = [
        {"name": "a", "data": '{"x":\n1}'},
        {"name": "message", "data": "two"},
        {"name": "b", "data": "z"},
    ]
    expression = "given.flatMap((part) => it.push(part))"
    expression = f"(() => {{ const p = it.parser(); return {expression.replace('it.', 'p.')} }})()"
    chance = random.Random(7)
    for _ in range(20):
        cuts = sorted(chance.sample(range(len(text)), 9))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert module("lib/sse.js", expression, parts) == wanted
    assert module("lib/sse.js", expression, list(text)) == wanted


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("duration(0.4)", "0.4 s"),
        ("duration(59.6)", "1 min"),
        ("duration(200)", "3 min 20 s"),
        ("duration(7500)", "2 h 5 min"),
        ("duration(273600)", "3 d 4 h"),
        ("duration(-3)", "0 s"),
        ("money(0.0000034)", "$0.000003"),
        ("money(-12.5)", "\u2212$12.50"),
        ("amount('tokens', 12340)", "12,340"),
        ("amount('tokens', 2345678)", "2.346M"),
        ("percent(0.004)", "<1%"),
        ("percent(0.999)", "99%"),
        ("percent(-0.5)", "\u221250%"),
        ("rate(0.01)", "<0.1"),
        ("rate(12.34)", "12.3"),
    ],
)
def test_figures_read_well(module: Any, call: str, text: str):
    """No limit is full that is not, and no share is none that is some."""
    assert module("lib/format.js", f"it.{call}") == text


def test_a_timeline_is_made_of_events_and_the_state_now(module: Any):
    """What was before the first event is known from that event; holds lie above."""
    events = [
        {"type": "breaker", "resource": "p/m", "time": 9000, "from": "closed", "to": "open"},
        {"type": "breaker", "resource": "p/x", "time": 9100, "from": "closed", "to": "open"},
        {"type": "breaker", "resource": "p/m", "time": 9400, "from": "open", "to": "half_open"},
        {"type": "override", "resource": "p/m", "time": 9500, "to": "closed", "lasts": 200},
    ]
    view = {"resource": "p/m", "state": "half_open", "override": None}
    found = module(
        "views/breakers.js",
        "it.segmentsOf(given[0], given[1], 10000)",
        [view, events[::-1]],
    )
    assert [(each["state"], each["from"], each["to"], each["held"]) for each in found] == [
        ("closed", 6400, 9000, None),
        ("open", 9000, 9400, None),
        ("half_open", 9400, 10000, None),
        ("closed", 9500, 9700, "closed"),
    ]
    quiet = module("views/breakers.js", "it.segmentsOf(given, [], 10000)", view)
    assert [(each["from"], each["to"]) for each in quiet] == [(6400, 10000)]


PATCH = """(() => {
  const root = document.createElement("div");
  const draw = (names) => it.patch(root, names.map((name) => typeof name === "string"
    ? it.h("p", { key: name, class: name }, name) : it.h("i", {}, String(name))));
  const nodes = new Map();
  for (const names of given) {
    draw(names);
    const text = [...root.children].map((each) => each.textContent).join(" ");
    if (text !== names.join(" ")) return `${text} instead of ${names.join(" ")}`;
    const present = new Set(names.filter((name) => typeof name === "string"));
    for (const name of [...nodes.keys()]) if (!present.has(name)) nodes.delete(name);
    for (const each of root.querySelectorAll("p")) {
      const before = nodes.get(each.className);
      if (before && before !== each) return `${each.className} is another node`;
      nodes.set(each.className, each);
    }
  }
  return "right";
})()"""


def test_an_update_changes_only_what_differs(module: Any):
    """Whatever comes, goes and moves, what is told again is the same node."""
    chance = random.Random(3)
    names: list[object] = [*"abcdefgh", 1, 2, 3]
    drawn = [chance.sample(names, chance.randint(0, len(names))) for _ in range(300)]
    assert module("lib/dom.js", PATCH, drawn) == "right"


def test_steps_are_made_of_moments(module: Any):
    """One every five seconds; a resource that comes later had nothing before."""

    def moment(time: int, granted: float) -> dict[str, Any]:
        late = {"no_room": 0, "stopped": 0, "failed": 0}
        traffic = [{"resource": "p/m", "granted": granted, **late}]
        if time > 107:
            traffic.append({"resource": "p/n", "granted": 30, **late})
        told = {"store": None, "resources": [], "tenants": [], "traffic_seconds": 10}
        return {"time": time, "traffic": traffic, **told}

    moments = [moment(100 + second, 10.0 * second) for second in range(12)]
    run = """(() => {
      const model = it.createModel();
      const past = { step: 5, times: [98], traffic: [], levels: [] };
      it.take(model, { name: "past", data: past }, 0);
      for (const data of given) it.take(model, { name: "live", data }, 0);
      return [model.times, it.trafficSeries(model, "p/m").granted, it.trafficSeries(model).granted];
    })()"""
    times, one, all_of_them = module("model.js", run, moments)
    assert times == [98, 103, 108]
    assert one == [0, pytest.approx(3), pytest.approx(8)]
    assert all_of_them == [0, pytest.approx(3), pytest.approx(11)]
