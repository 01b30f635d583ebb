"""/metrics: decisions of this replica, and circuits of the fleet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests_support.calls import ask, refused
from tests_support.service import http_client, in_process
from tests_support.waiting import until

from limiter_service.engine.forecast import Prediction
from limiter_service.engine.names import REST
from limiter_service.engine.outages import Outages
from limiter_service.engine.statistics import Wait
from limiter_service.engine.tally import Tally
from limiter_service.engine.witness import Witness
from limiter_service.metrics import Metrics

CONFIG = """
pools:
  p:
    models:
      m: {limits: [{name: budget, meter: tokens, limit: 10, per: 366d}]}
      n: {}
    breaker:
      {min_calls: 2, consecutive: 0, open: 200ms, jitter: 0, successes: 1, probe_ttl: 300ms,
       max_lost: 9}
"""
Sample = Callable[..., float]


@pytest.fixture
async def service(serve: Any) -> httpx.AsyncClient:
    """A pool whose circuits open for a moment."""
    client: httpx.AsyncClient = await serve(CONFIG)
    return client


async def scrape(client: httpx.AsyncClient) -> Sample:
    """What Prometheus would read: the sum of the samples with these labels."""
    text = (await client.get("/metrics")).text
    families = list(text_string_to_metric_families(text))

    def value(name: str, **labels: str) -> float:
        found = [
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == f"sluicegate_{name}" and labels.items() <= sample.labels.items()
        ]
        return sum(found)

    return value


async def fail(client: httpx.AsyncClient, count: int, resource: str = "p/n") -> None:
    """Calls that end badly."""
    leases = [await ask(client, "acquire", resource=resource, tokens=1) for _ in range(count)]
    for lease in leases:
        await ask(client, "settle", lease=lease["lease"], outcome="server_error")


async def probe(client: httpx.AsyncClient) -> Any:
    """The first grant of a circuit whose time is over."""
    granted: list[Any] = []

    async def passes() -> bool:
        answer = await client.post("/v1/acquire", json={"resource": "p/n", "tokens": 1})
        granted.append(answer.json())
        return answer.status_code == 200

    await until(passes, "the circuit lets nobody probe")
    assert granted[-1]["probe"]
    return granted[-1]["lease"]


async def test_decisions_are_counted_by_reason_and_limit(service: httpx.AsyncClient):
    """What is not configured has no name: callers could make up any."""
    await ask(service, "acquire", resource="p/m", tokens=8)
    await refused(service, "acquire", 429, "rate_limited", resource="p/m", tokens=8)
    await refused(service, "acquire", 404, "unknown_resource", resource="p/x", tokens=8)
    value = await scrape(service)
    assert value("decisions_total", resource="p/m", code="granted") == 1
    assert value("decisions_total", resource="p/m", code="rate_limited", limit="m.budget") == 1
    assert value("decisions_total", resource="", code="unknown_resource") == 1
    assert value("decisions_total") == 3


async def test_states_and_transitions_are_shown(service: httpx.AsyncClient):
    """One series per state, and each transition once."""
    value = await scrape(service)
    assert value("breaker_state", resource="p/n", state="closed") == 1
    await fail(service, 3)
    await refused(service, "acquire", 503, "breaker_open", resource="p/n", tokens=1)
    value = await scrape(service)
    assert value("breaker_state", resource="p/n", state="open") == 1
    assert value("breaker_state", resource="p/n", state="closed") == 0
    opened = {"from": "closed", "to": "open", "reason": "failure_rate"}
    assert value("breaker_transitions_total", resource="p/n", **opened) == 1
    assert value("decisions_total", code="breaker_open", reason="open") == 1
    assert value("reports_total", resource="p/n", outcome="server_error") == 3
    lease = await probe(service)
    await ask(service, "settle", lease=lease, outcome="success")
    value = await scrape(service)
    assert value("breaker_transitions_total", resource="p/n") == 3
    assert value("breaker_transitions_total", to="closed", reason="recovered") == 1
    assert value("breaker_probes_total", resource="p/n", result="passed") == 1


async def test_the_third_report_of_an_outage_is_stale(service: httpx.AsyncClient):
    """Two failures open; what comes after them is from before."""
    await fail(service, 4)
    assert (await scrape(service))("breaker_stale_reports_total", resource="p/n") == 2


@pytest.mark.parametrize(
    ("outcome", "result"),
    [("server_error", "failed"), ("cancelled", "neutral"), ("success", "passed")],
)
async def test_probes_are_counted_by_their_vote(
    service: httpx.AsyncClient, outcome: str, result: str
):
    """Each once, also when its settle is sent twice."""
    await fail(service, 2)
    lease = await probe(service)
    for _ in range(2):
        await ask(service, "settle", lease=lease, outcome=outcome)
    value = await scrape(service)
    assert value("breaker_probes_total", result=result) == 1
    assert value("breaker_probes_total") == 1


async def test_an_early_report_is_the_vote_of_its_probe(service: httpx.AsyncClient):
    """The settle at the end of the stream is neither late nor stale."""
    await fail(service, 2)
    lease = await probe(service)
    await ask(service, "settle", lease=lease, phase="first_token")
    await ask(service, "settle", lease=lease, outcome="success")
    value = await scrape(service)
    assert value("breaker_probes_total", result="passed") == 1
    assert value("breaker_probes_total") == 1
    assert value("breaker_stale_reports_total") == 0
    assert value("reports_total", outcome="success") == 1


async def test_a_probe_that_is_lost_is_counted_and_its_late_report_is_none(
    service: httpx.AsyncClient,
):
    """The next one takes its place."""
    await fail(service, 2)
    late = await probe(service)
    await probe(service)
    await ask(service, "settle", lease=late, outcome="success")
    value = await scrape(service)
    assert value("breaker_probes_lost_total", resource="p/n") == 1
    assert value("breaker_probes_total", result="late") == 1


async def test_a_circuit_that_is_held_is_shown(service: httpx.AsyncClient):
    """As what it does."""
    order = {"mode": "open", "ttl": 60, "reason": "test"}
    await service.put("/v1/breakers/p/n/override", json=order)
    value = await scrape(service)
    assert value("breaker_held", resource="p/n", mode="open") == 1
    assert value("breaker_state", resource="p/n", state="open") == 1
    assert value("breaker_retry_after_seconds", resource="p/n", reason="forced_open") > 30


def test_names_beyond_a_thousand_are_one():
    """Callers make up names for wildcards."""
    tally = Tally()
    for i in range(1500):
        tally.granted(f"p/{i}")
    assert len(tally.decisions) == 1001
    assert tally.decisions[REST, "granted", "", ""] == 500


def test_waits_of_made_up_names_are_one_series():
    """A label costs memory for ever."""
    witness = Witness(None, list, "sg:", str)  # type: ignore[arg-type]  # asks nobody
    outages = Outages(None, None, None, "sg:", 1.0)  # type: ignore[arg-type]  # likewise
    metrics = Metrics(Tally(), witness, outages)
    for i in range(1500):
        metrics.note_wait(Wait(f"p/{i}", 1.0, Prediction((1.0,), 1.0, 2.0, 0)))
    text = metrics.render([]).decode()
    assert text.count("sluicegate_queue_wait_seconds_count{") == 1001
    assert 'sluicegate_queue_wait_seconds_count{resource="*"} 500.0' in text


async def test_metrics_are_read_without_a_store_too(tmp_path: Path):
    """What this replica knows is all the more worth reading."""
    config = tmp_path / "pools.yaml"
    config.write_text(CONFIG)
    async with (
        in_process(f"unix://{tmp_path}/nobody", config) as app,
        http_client(app) as client,
    ):
        await refused(client, "acquire", 503, "store_unavailable", resource="p/m", tokens=1)
        value = await scrape(client)
    assert value("decisions_total", code="store_unavailable") == 1
    assert value("breaker_state") == 0
