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
from limiter_service.engine.pages import Grants
from limiter_service.engine.statistics import Wait
from limiter_service.engine.tally import MOST_RESOURCES, Tally
from limiter_service.engine.witness import Witness
from limiter_service.metrics import Metrics

CONFIG = """
pools:
  p:
    models:
      m: {limits: [{name: budget, meter: tokens, limit: 10, per: 366d}]}
      n: {}
    breaker: {min_calls: 2, consecutive: 0, open: 200ms, jitter: 0, successes: 1, probe_ttl: 1h}
  shut:
    models: {n: {}}
    breaker: {min_calls: 2, consecutive: 0, open: 1h, max_open: 1h}
  lost:
    models: {n: {}}
    breaker:
      {min_calls: 2, consecutive: 0, open: 200ms, jitter: 0, successes: 1, probe_ttl: 300ms,
       max_lost: 9}
"""
Sample = Callable[..., float]


@pytest.fixture
async def service(serve: Any) -> httpx.AsyncClient:
    """Pools whose circuits open for a moment, or for long, or whose probes are soon lost."""
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


async def probe(client: httpx.AsyncClient, resource: str = "p/n") -> Any:
    """The first grant of a circuit whose time is over."""
    granted: list[Any] = []

    async def passes() -> bool:
        answer = await client.post("/v1/acquire", json={"resource": resource, "tokens": 1})
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


async def test_states_are_shown(service: httpx.AsyncClient):
    """One series per state."""
    value = await scrape(service)
    assert value("breaker_state", resource="shut/n", state="closed") == 1
    await fail(service, 3, "shut/n")
    await refused(service, "acquire", 503, "breaker_open", resource="shut/n", tokens=1)
    value = await scrape(service)
    assert value("breaker_state", resource="shut/n", state="open") == 1
    assert value("breaker_state", resource="shut/n", state="closed") == 0
    assert value("decisions_total", code="breaker_open", reason="open") == 1
    assert value("reports_total", resource="shut/n", outcome="server_error") == 3


async def test_transitions_are_counted(service: httpx.AsyncClient):
    """Each once."""
    await fail(service, 3)
    value = await scrape(service)
    opened = {"from": "closed", "to": "open", "reason": "failure_rate"}
    assert value("breaker_transitions_total", resource="p/n", **opened) == 1
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
    await fail(service, 2, "lost/n")
    late = await probe(service, "lost/n")
    await probe(service, "lost/n")
    await ask(service, "settle", lease=late, outcome="success")
    value = await scrape(service)
    assert value("breaker_probes_lost_total", resource="lost/n") == 1
    assert value("breaker_probes_total", result="late") == 1


async def test_a_circuit_that_is_held_is_shown(service: httpx.AsyncClient):
    """As what it does."""
    order = {"mode": "open", "ttl": 60, "reason": "test"}
    await service.put("/v1/breakers/p/n/override", json=order)
    value = await scrape(service)
    assert value("breaker_held", resource="p/n", mode="open") == 1
    assert value("breaker_state", resource="p/n", state="open") == 1
    assert value("breaker_retry_after_seconds", resource="p/n", reason="forced_open") > 30


def test_names_beyond_a_number_are_one():
    """Callers make up names for wildcards."""
    tally = Tally()
    for i in range(500):
        grants = Grants(f"p/{i}", "default")
        grants.count = 1
        tally.granted(grants)
    assert len(tally.decisions) == MOST_RESOURCES + 1
    assert tally.decisions[REST, "granted", "", ""] == 500 - MOST_RESOURCES


def test_waits_of_made_up_names_are_one_series():
    """A label costs memory for ever."""
    witness = Witness(None, list, "sg:", str)  # type: ignore[arg-type]  # asks nobody
    outages = Outages(None, None, None, "sg:", 1.0)  # type: ignore[arg-type]  # likewise
    metrics = Metrics(Tally(), witness, outages=outages)
    for i in range(1500):
        metrics.note_wait(Wait(f"p/{i}", 1.0, Prediction((1.0,), 1.0, 2.0, 0)))
    text = metrics.render([]).decode()
    assert text.count("sluicegate_queue_wait_seconds_count{") == MOST_RESOURCES + 1
    assert 'sluicegate_queue_wait_seconds_count{resource="*"} 1300.0' in text


async def test_metrics_are_read_without_a_store_too(tmp_path: Path):
    """What this replica knows is all the more worth reading."""
    config = tmp_path / "pools.yaml"
    config.write_text(CONFIG)
    async with (
        in_process(f"unix://{tmp_path}/nobody", config, allow_anonymous=True) as app,
        http_client(app) as client,
    ):
        await refused(client, "acquire", 503, "store_unavailable", resource="p/m", tokens=1)
        value = await scrape(client)
    assert value("decisions_total", code="store_unavailable") == 1
    assert value("breaker_state") == 0
    assert value("store_failures_total", script="beat") >= 1
    assert value("store_available") == 0


PLAIN = """
pools:
  p:
    models:
      m:
        limits:
          - {name: budget, meter: tokens, limit: 1000, per: 366d}
          - {name: burst, meter: requests, limit: 100, per: 366d, burst: 10}
          - {name: slots, meter: concurrency, limit: 4}
    tenants:
      team: {limits: [{name: own, meter: tokens, limit: 500, per: 366d}]}
    prices: {m: {input: 1, output: 2}}
"""


async def test_limits_and_leases_are_those_of_the_fleet(serve: Any):
    """As they stand, with what an operator holds; also limits of tenants that the file names."""
    client = await serve(PLAIN)
    other = await serve(PLAIN)
    await ask(other, "acquire", resource="p/m", tokens=400, tenant="team")
    order = {"limit": 2000, "ttl": 60, "reason": "test"}
    await client.put("/v1/limits/p/m/budget/override", json=order)
    value = await scrape(client)
    budget = {"limit": "p/m.budget", "meter": "tokens"}
    assert value("limit_configured", **budget) == 1000
    assert value("limit_in_force", **budget) == value("limit_held", **budget) == 2000
    assert value("limit_remaining", limit="p/team.own") == pytest.approx(100, abs=0.1)
    assert value("limit_remaining_ratio", limit="p/team.own") == pytest.approx(0.2, abs=0.001)
    assert value("limit_remaining_ratio", limit="p/m.burst") == pytest.approx(0.9, abs=0.001)
    assert value("leases_in_flight", resource="p/m") == 1
    assert value("config_pools") == 1
    assert value("store_available") == 1
    assert value("store_call_seconds_count", script="snapshot") >= 2


async def test_what_calls_reserve_use_and_cost_is_counted(serve: Any):
    """And how the provider has served them."""
    client = await serve(PLAIN)
    usage = {"input_tokens": 30, "output_tokens": 20}
    for tenant in ("team", "else"):
        asked = {"resource": "p/m", "tokens": 100, "tenant": tenant, "request_id": "r"}
        lease = await ask(client, "acquire", **asked)
        report = {"usage": usage, "latency": 3, "ttft": 0.3, "estimated_input_tokens": 20}
        for _ in range(2):
            await ask(client, "settle", lease=lease["lease"], **report)
    assert (await ask(client, "acquire", **asked))["settled"]  # a repeat reserves nothing
    lease = await ask(client, "acquire", resource="p/m", tokens=100)
    used = {"input_tokens": 150, "output_tokens": 0}
    await ask(client, "settle", lease=lease["lease"], outcome="rate_limited", usage=used)
    value = await scrape(client)
    tokens = {"resource": "p/m", "meter": "tokens"}
    assert value("reserved_total", **tokens) == 300
    assert value("refunded_total", **tokens) == 100
    assert value("debited_total", **tokens) == 50
    assert value("provider_rate_limited_total", resource="p/m") == 1
    assert value("provider_latency_seconds_sum", resource="p/m") == 6
    assert value("provider_ttft_seconds_count", resource="p/m") == 2
    assert value("estimate_ratio_sum", resource="p/m") == 3
    assert value("cost_usd_total", resource="p/m") == pytest.approx(290e-6)
    assert value("tenant_cost_usd_total", tenant="team") == pytest.approx(70e-6)
    assert value("tenant_cost_usd_total", tenant="*") == pytest.approx(220e-6)
    assert value("tenant_decisions_total", tenant="team", code="granted") == 1
    assert value("tenant_decisions_total", tenant="*", code="granted") == 3
    assert value("acquire_seconds_count", answer="granted") == 4


async def test_leases_that_nobody_settles_are_counted(serve: Any):
    """Not those that were settled elsewhere, were renewed, or came back by another way."""
    client, other = await serve(PLAIN), await serve(PLAIN)
    leases = [
        (await ask(client, "acquire", resource="p/m", tokens=1, ttl=1))["lease"] for _ in range(4)
    ]
    await ask(client, "settle", lease=leases[0])
    await ask(other, "settle", lease=leases[1])
    await ask(other, "renew", lease=leases[2], ttl=60)

    async def found() -> bool:
        return (await scrape(client))("leases_expired_total") >= 1

    await until(found, "the lease is not missed")
    value = await scrape(client)
    assert value("leases_expired_total", resource="p/m") == 1
    (stats,) = (await client.get("/v1/stats")).json()["resources"]
    assert (stats["granted"], stats["settled"], stats["expired"]) == (4, 2, 1)
    assert (await scrape(other))("leases_expired_total") == 0
