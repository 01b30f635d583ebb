"""Metrics: their names, the page that describes them, and how many series they can be."""

import re
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from limiter_service.config import parse
from limiter_service.engine.books import Books
from limiter_service.engine.census import Census, QueueNow
from limiter_service.engine.forecast import Prediction
from limiter_service.engine.names import REST
from limiter_service.engine.outages import Outages
from limiter_service.engine.policy import Policies
from limiter_service.engine.statistics import Wait
from limiter_service.engine.tally import Tally
from limiter_service.engine.witness import Witness
from limiter_service.metrics import Metrics
from limiter_service.monitoring.families import BOUND, FAMILIES, all_families
from limiter_wire import (
    Acquire,
    BudgetView,
    ErrorCode,
    Granted,
    LimitView,
    Meter,
    Outcome,
    Settle,
    Settled,
    Usage,
    problem,
)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
OTHERS = ("process_", "python_info")
RARE = {"breaker_probes", "breaker_probes_lost", "breaker_would_open", "store_failures"}
"""What the traffic of these tests does not bring about."""


def test_promtool_has_no_complaint(promtool: Callable[..., str], scraped: str):
    """Names, units, help texts, types."""
    assert promtool("check", "metrics", told=scraped) == ""


def test_every_metric_has_a_value_and_none_is_unknown(scraped: str):
    """After traffic of every kind, each of the table is there with its labels, and nothing else."""
    found = {
        family.name: {frozenset(sample.labels) - {"le"} for sample in family.samples}
        for family in text_string_to_metric_families(scraped)
        if not family.name.startswith(OTHERS)
    }
    assert set(found) == set(FAMILIES)
    silent = {name for name, labels in found.items() if not labels}
    assert silent <= {f"sluicegate_{name}" for name in RARE}
    for name, labels in found.items():
        assert labels <= {frozenset(FAMILIES[name].labels)}, name


def test_the_page_is_the_registry():
    """Every metric that the registry has stands on the page, with its kind and its meaning."""
    row = re.compile(r"^\| `(\w+)` \| (\w+) \| .*? \| (.+) \| [\d,]+ \|$", re.MULTILINE)
    rows = row.findall(PAGE.read_text())
    witness = Witness(None, list, "sg:", str)  # type: ignore[arg-type]  # asks nobody
    outages = Outages(None, None, None, "sg:", 1.0)  # type: ignore[arg-type]  # likewise
    metrics = Metrics(Tally(), witness, outages=outages)
    registered = {
        (f"{each.name}_total" if each.type == "counter" else each.name): (
            each.type,
            each.documentation,
        )
        for each in metrics.families()
        if not each.name.startswith(OTHERS)
    }
    assert {name: (kind, text) for name, kind, text in rows} == registered
    assert len(rows) == len(FAMILIES)


def test_series_are_bounded_whatever_callers_make_up():
    """Names of models, tenants and limits without end: each metric stays within its bound."""
    books, tenants = Books(), {f"t{i}" for i in range(300)}
    witness = Witness(None, list, "sg:", books.tally.name)  # type: ignore[arg-type]  # asks nobody
    metrics = Metrics(books.tally, witness, lambda: tenants)
    books.tell(metrics)
    policies = Policies(parse('pools: {p: {models: {"*": {}}}}', ".yaml"), "sg:")
    limits = {}
    for i in range(600):
        name, tenant = f"p/{i}", f"t{i % 350}"
        policy = policies.policy(name, tenant)
        asked = Acquire(resource=name, tokens=1, tenant=tenant)
        for code in ErrorCode:
            refusal = problem(code, "no", resource=name, limit=f"{tenant}{i}.own")
            books.refused(asked, refusal, 0.1)
        granted = Granted(
            lease="x", expires_in=1, charged=dict.fromkeys(map(str, Meter), 1.0), limits=[]
        )
        books.answered(asked, granted, 0.1)
        for outcome in Outcome:
            report = Settle(
                lease="x", outcome=outcome, usage=Usage(input_tokens=1), cost_usd=0.1,
                latency=1, ttft=1, estimated_input_tokens=1,
            )  # fmt: skip
            books.settled(policy, report)
        moved = dict.fromkeys(map(str, Meter), 1.0)
        books.moved(policy, Settled(refunded=moved, debited=moved))
        books.expired(name, tenant)
        metrics.differs([f"{name}.shadow"], "would_grant")
        metrics.note_wait(Wait(name, 3.0, Prediction((1.0,), 1.0, 2.0, 0), tenant))
        budget = BudgetView(
            name=name, meter=Meter.COST_USD, limit=1, per="day", spent=0, resets_in=1
        )
        metrics.budgets("p", [budget])
        limits[name] = LimitView(
            name=name, meter=Meter.TOKENS, limit=1, remaining=1, reset_after=0,
            configured=1, capacity=1, learn="down", learned=1,
        )  # fmt: skip
    standing = Census(
        limits=limits,
        in_flight=dict.fromkeys(limits, 1),
        queues=[QueueNow(pool=str(i), depth=1, oldest=1, most=1) for i in range(500)],
    )
    text = metrics.render([], standing).decode()
    total = 0
    for family in text_string_to_metric_families(text):
        if family.name in FAMILIES:
            total += len(family.samples)
            assert len(family.samples) <= FAMILIES[family.name].bound, family.name
    assert 30_000 < total <= BOUND
    assert f'resource="{REST}"' in text


def test_a_bound_is_a_number_of_series():
    """Counted by hand for one of each kind."""
    bounds = {each.name.removeprefix("sluicegate_"): each.bound for each in all_families()}
    assert bounds["store_available"] == 1
    assert bounds["cost_usd"] == 201
    assert bounds["tokens"] == 402
    assert bounds["acquire_seconds"] == 2 * (12 + 2)
