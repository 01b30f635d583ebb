"""Alert rules and the Grafana dashboard: they parse, they fire, and speak of metrics there are."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from limiter_service.monitoring.families import FAMILIES

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "limiter_service" / "monitoring"
RUNBOOKS = ROOT / "docs" / "runbooks"
CASES = Path(__file__).parent / "alerts.test.yaml"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# What Grafana puts in their places.
VARIABLES = {"$__rate_interval": "5m", "$resource": ".+"}


def names() -> list[str]:
    """Every alert."""
    return [rule["alert"] for rule in RULES]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression with where it stands."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]


def plain(expression: str) -> str:
    """An expression as Prometheus gets it."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of series within a parsed expression."""
    match node:
        case promql_parser.VectorSelector():
            yield node
        case promql_parser.MatrixSelector():
            yield node.vector_selector
        case promql_parser.Call():
            for argument in node.args:
                yield from selectors(argument)
        case promql_parser.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return
        case _:
            yield from selectors(node.expr)


def test_rules_are_ones(promtool: Callable[..., str]):
    """promtool has no complaint."""
    told = promtool("check", "rules", "--lint=all", "--lint-fatal", str(MONITORING / "alerts.yaml"))
    assert f"{len(RULES)} rules found" in told


def test_every_alert_fires_when_it_should_and_only_then(
    promtool: Callable[..., str], tmp_path: Path
):
    """Each has a case with something bad and something good."""
    tested = [case["name"] for case in yaml.safe_load(CASES.read_text())["tests"]]
    assert tested == names()
    shutil.copy(MONITORING / "alerts.yaml", tmp_path)
    shutil.copy(CASES, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", CASES.name, cwd=tmp_path)


def test_every_alert_has_a_page_and_every_page_an_alert():
    """Which the alert names, and which says what it means, where to look, what to do."""
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == set(names())
    for rule in RULES:
        path = ROOT / rule["annotations"]["runbook"]
        text = path.read_text()
        assert text.startswith(f"# {rule['alert']}\n")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "Look", "Do"]
        assert path.parent == RUNBOOKS


def test_pages_speak_of_metrics_that_there_are():
    """No runbook looks at what does not exist."""
    known = {each.shown for each in FAMILIES.values()}
    known |= {
        f"{each.name}_{part}"
        for each in FAMILIES.values()
        if each.kind == "histogram"
        for part in ("bucket", "count", "sum")
    }
    for path in (*RUNBOOKS.glob("*.md"), ROOT / "docs" / "guides" / "monitoring.md"):
        assert set(re.findall(r"\bsluicegate_\w+", path.read_text())) <= known, path.name


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_asks_for_series_that_a_service_has(
    where: str, expression: str, scraped: str
):
    """It parses; each metric in it is in /metrics of a running service, with each of its labels."""
    found = list(selectors(promql_parser.parse(plain(expression))))
    assert found
    for selector in found:
        name = selector.name
        lines = re.findall(rf"^{name}(?:{{(.*)}})? ", scraped, re.MULTILINE)
        rare = name.removesuffix("_total") in RARE
        assert lines or (rare and f"# TYPE {name}" in scraped), f"{where}: no {name}"
        labels = set(re.findall(r'(\w+)="', lines[0])) if lines else None
        for matcher in selector.matchers.matchers:
            assert labels is None or matcher.name in labels, f"{where}: {name} {matcher.name}"


RARE = {
    f"sluicegate_{name}"
    for name in ("breaker_probes", "breaker_probes_lost", "breaker_would_open", "store_failures")
}
"""What the traffic of these tests does not bring about."""


def test_groupings_name_labels_of_their_metrics():
    """`by (...)` over a label that no metric has would make one series of all."""
    labels = {label for each in FAMILIES.values() for label in each.labels}
    labels |= {"le", "job", "instance"}
    for where, expression in expressions():
        for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert {each.strip() for each in group.split(",")} <= labels, where


def test_every_metric_is_on_the_dashboard():
    """What nobody looks at need not be measured."""
    shown = set(
        re.findall(r"\bsluicegate_\w+?(?=_bucket|_count|_sum|_total|\W)", json.dumps(DASHBOARD))
    )
    left = {each.name.removeprefix("sluicegate_") for each in FAMILIES.values()} - {
        name.removeprefix("sluicegate_") for name in shown
    }
    assert left == {"limit_remaining", "limit_learned", "limit_held", "queue_max_waiters"}


def test_panels_are_laid_out_without_gaps_and_say_what_they_show():
    """Ids are unique, rows are full, and none lies upon another."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height
    assert all(panel["description"] for panel in PANELS)
