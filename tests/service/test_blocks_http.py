"""Blocks over HTTP: what is lent, to whom, and what becomes of it."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import redis
from tests_support.waiting import until

Serve = Callable[..., Awaitable[httpx.AsyncClient]]

CONFIG = """
pools:
  p:
    queue: {max_wait: 3000s}
    prices:
      dear: {input: 2, output: 8}
      steps: {input: 2, output: 8, long: {above: 1000, input: 4, output: 8}}
    blocks: {share: 0.1, hold: 60s}
    breaker: {min_calls: 2, consecutive: 0, open: 60s, jitter: 0}
    models:
      m:
        limits:
          - {name: calls, meter: requests, limit: 1000, per: 366d}
          - {name: budget, meter: tokens, limit: 100000, per: 366d}
      day: {limits: [{name: calls, meter: requests, limit: 1000, per: day, window: calendar}]}
      slide: {limits: [{name: calls, meter: requests, limit: 1000, per: 3600s, window: sliding}]}
      dear: {limits: [{name: money, meter: cost_usd, limit: 10, per: 366d}]}
      steps: {tpm: 100000}
      slots: {concurrency: 50, rpm: 1000}
      weighed: {limits: [{meter: tokens, limit: 100000, per: 366d, weights: {output: 5}}]}
      tight: {limits: [{name: calls, meter: requests, limit: 15, per: 3000s}]}
  brief:
    blocks: {share: 0.1, hold: 100ms}
    lease_ttl: 1s
    models: {m: {limits: [{name: calls, meter: requests, limit: 1000, per: 366d}]}}
  closed:
    blocks: {share: 0}
    models: {m: {rpm: 1000}}
"""


@pytest.fixture
async def service(serve: Serve) -> httpx.AsyncClient:
    """The service with pools that lend, and one that does not."""
    return await serve(CONFIG)


async def ask(service: httpx.AsyncClient, resource: str, calls: int, **more: Any) -> httpx.Response:
    """Ask for a block of calls of 10 tokens."""
    body = {"resource": resource, "tokens": 10, "block": calls, **more}
    return await service.post("/v1/acquire", json=body)


async def tell(service: httpx.AsyncClient, lease: str, number: int, stage: str, **more: Any) -> Any:
    """Report on a block."""
    block = {"number": number, "stage": stage, **more}
    answer = await service.post("/v1/settle", json={"lease": lease, "block": block})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def left(service: httpx.AsyncClient, resource: str = "p/m") -> dict[str, float]:
    """What remains of each limit."""
    answer = await service.get(f"/v1/resources/{resource}")
    return {each["name"].partition(".")[2]: each["remaining"] for each in answer.json()["limits"]}


async def held(service: httpx.AsyncClient, pool: str = "p") -> tuple[float, float]:
    """Calls and tokens that the metrics say are held in blocks."""
    text = (await service.get("/metrics")).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[:1] != "#")
    name = f'sluicegate_blocks_held{{meter="%s",pool="{pool}"}}'
    return float(lines[name % "requests"]), float(lines[name % "tokens"])


async def test_a_block_is_charged_in_full_before_it_is_answered(service: httpx.AsyncClient):
    """So many requests, and the tokens of all of them; the metrics say that they are held."""
    answer = (await ask(service, "p/m", 50)).json()
    assert answer["block"] == {"calls": 50, "tokens": 500, "hold": 60.0, "plain": True}
    assert answer["charged"] == {"requests": 50, "tokens": 500}
    assert answer["waited"] == 0.0
    assert await left(service) == {"calls": 950, "budget": 99_500}
    assert await held(service) == (50, 500)


async def test_what_was_not_spent_comes_back(service: httpx.AsyncClient):
    """Requests too, for nobody has made them; what calls under way hold stays charged."""
    lease = (await ask(service, "p/m", 50)).json()["lease"]
    usage = {"input_tokens": 12, "output_tokens": 8}
    over = {"calls": 2, "tokens": 20, "usage": usage}
    told = await tell(service, lease, 1, "returned", calls=3, tokens=30, ended=[over])
    assert told["settled"] is False
    assert await left(service) == {"calls": 995, "budget": 99_950}
    assert await held(service) == (0, 0)
    all_over = {"calls": 3, "tokens": 30, "usage": {"input_tokens": 100}}
    ended = [over | {"told": True}, all_over]
    told = await tell(service, lease, 2, "ended", ended=ended)
    assert told["settled"] is True
    assert told["debited"] == {"tokens": 70}
    assert await left(service) == {"calls": 995, "budget": 99_880}


async def test_a_debit_beyond_the_block_is_charged(service: httpx.AsyncClient):
    """Calls that use more than the whole block leave what they have used."""
    lease = (await ask(service, "p/m", 2)).json()["lease"]
    over = {"calls": 2, "tokens": 20, "usage": {"input_tokens": 1000, "output_tokens": 500}}
    assert (await tell(service, lease, 1, "ended", ended=[over]))["debited"] == {"tokens": 1480}
    assert await left(service) == {"calls": 998, "budget": 98_500}


async def test_calls_without_usage_keep_what_they_had_reserved(service: httpx.AsyncClient):
    """Unless the provider has not served them, or not even counted them."""
    lease = (await ask(service, "p/m", 6)).json()["lease"]
    ended = [
        {"calls": 2, "tokens": 20},
        {"outcome": "invalid_request", "calls": 1, "tokens": 10},
        {"outcome": "connection", "calls": 3, "tokens": 30, "cause": {"refund": "all"}},
    ]
    await tell(service, lease, 1, "ended", ended=ended)
    assert await left(service) == {"calls": 997, "budget": 99_980}


async def test_a_report_counts_once_and_a_block_ends_once(service: httpx.AsyncClient):
    """A repeat after a lost answer changes nothing, neither limits nor statistics."""
    lease = (await ask(service, "p/m", 50)).json()["lease"]
    over = {"calls": 5, "tokens": 50, "usage": {"input_tokens": 40}}
    for _ in range(2):
        await tell(service, lease, 1, "returned", ended=[over])
    assert await left(service) == {"calls": 995, "budget": 99_960}
    ended = [over | {"told": True}, {"calls": 1, "tokens": 10, "usage": {"input_tokens": 10}}]
    first = await tell(service, lease, 2, "ended", ended=ended)
    again = await tell(service, lease, 2, "ended", ended=ended)
    assert (first["already_settled"], again["already_settled"]) == (False, True)
    assert await left(service) == {"calls": 994, "budget": 99_950}
    stats = (await service.get("/v1/stats?since=hour")).json()
    resource = next(each for each in stats["resources"] if each["resource"] == "p/m")
    assert resource["granted"] == 6


async def test_the_same_request_id_is_the_same_block(service: httpx.AsyncClient):
    """Who asks again after a lost answer is charged once."""
    first = (await ask(service, "p/m", 50, request_id="one")).json()
    again = (await ask(service, "p/m", 50, request_id="one")).json()
    assert again["lease"] == first["lease"]
    assert again["block"] == first["block"]
    assert (await left(service))["calls"] == 950
    assert (await ask(service, "p/m", 40, request_id="one")).json()["code"] == "request_conflict"


async def test_all_blocks_together_hold_no_more_than_their_share(service: httpx.AsyncClient):
    """A tenth of 1000 requests: the second gets the rest, the third nothing, until one is back."""
    first = (await ask(service, "p/m", 80)).json()
    assert (await ask(service, "p/m", 80)).json()["block"]["calls"] == 20
    refused = await ask(service, "p/m", 80)
    assert (refused.status_code, refused.json()["code"]) == (429, "not_lent")
    assert refused.json()["reason"] == "scarce"
    await tell(service, first["lease"], 1, "ended")
    assert (await ask(service, "p/m", 80)).json()["block"]["calls"] == 80


@pytest.mark.parametrize("resource", ["p/day", "p/slide"])
async def test_windows_take_back_what_was_not_spent(service: httpx.AsyncClient, resource: str):
    """Calendar and sliding windows are charged and refunded like buckets."""
    lease = (await ask(service, resource, 50)).json()["lease"]
    assert (await left(service, resource))["calls"] == 950
    await tell(
        service, lease, 1, "returned", calls=1, tokens=10, ended=[{"calls": 2, "tokens": 20}]
    )
    assert (await left(service, resource))["calls"] == 997
    await tell(service, lease, 2, "ended", ended=[{"calls": 3, "tokens": 30}])
    assert (await left(service, resource))["calls"] == 997


async def test_money_is_lent_by_the_dearer_price(service: httpx.AsyncClient):
    """And settled by what the calls have used."""
    lease = (await ask(service, "p/dear", 100)).json()["lease"]
    assert (await left(service, "p/dear"))["money"] == pytest.approx(10 - 100 * 10 * 8e-6)
    over = {"calls": 100, "tokens": 1000, "usage": {"input_tokens": 700, "output_tokens": 100}}
    await tell(service, lease, 1, "ended", ended=[over])
    assert (await left(service, "p/dear"))["money"] == pytest.approx(10 - 700 * 2e-6 - 100 * 8e-6)


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ("p/slots", "unsuitable"),
        ("p/steps", "unsuitable"),
        ("closed/m", "forbidden"),
        ("p/tight", "scarce"),
    ],
)
async def test_what_is_not_lent(service: httpx.AsyncClient, resource: str, reason: str):
    """Slots, prices that depend on the length, what is forbidden, less than two calls."""
    refused = (await ask(service, resource, 50)).json()
    assert (refused["code"], refused["reason"]) == ("not_lent", reason)


async def test_weights_above_one_are_said(service: httpx.AsyncClient):
    """Then the plain sum of tokens bounds nothing."""
    assert (await ask(service, "p/weighed", 50)).json()["block"]["plain"] is False


async def test_nothing_is_lent_while_somebody_waits(service: httpx.AsyncClient, db: redis.Redis):
    """Whoever waits, for whatever limit of the pool."""
    for _ in range(15):
        await service.post("/v1/acquire", json={"resource": "p/tight", "tokens": 1})
    waits = {"resource": "p/tight", "tokens": 1, "max_wait": 3000, "hold": 0, "request_id": "w"}
    assert (await service.post("/v1/acquire", json=waits)).status_code == 202
    assert (await ask(service, "p/m", 50)).json()["reason"] == "waiters"


async def test_nothing_is_lent_while_the_circuit_is_not_closed(service: httpx.AsyncClient):
    """Failures of a block's calls open it like those of others, and then blocks end."""
    lease = (await ask(service, "p/m", 50)).json()["lease"]
    over = {"outcome": "server_error", "calls": 2, "tokens": 20}
    assert (await tell(service, lease, 1, "holding", ended=[over]))["breaker"] == "open"
    assert (await left(service))["calls"] == 950
    assert (await ask(service, "p/m", 50)).json()["reason"] == "breaker"
    circuit = (await service.get("/v1/breakers/p/m")).json()
    assert circuit["state"] == "open"


async def test_many_successes_speak_for_the_circuit(service: httpx.AsyncClient):
    """Each call of a block counts as one: two failures among a hundred open nothing."""
    lease = (await ask(service, "p/m", 100)).json()["lease"]
    ended = [
        {"outcome": "server_error", "calls": 2, "tokens": 20},
        {"calls": 98, "tokens": 980},
    ]
    assert (await tell(service, lease, 1, "ended", ended=ended))["breaker"] == "closed"
    circuit = (await service.get("/v1/breakers/p/m")).json()
    assert (circuit["window"]["ok"], circuit["window"]["fail"]) == (98, 2)


async def test_slow_calls_of_a_block_are_slow_ones_of_the_circuit(service: httpx.AsyncClient):
    """By the time to the first token of each."""
    lease = (await ask(service, "p/m", 100)).json()["lease"]
    over = {"calls": 3, "tokens": 30, "ttfts": [0.5, 61.0, 70.0], "latencies": [1.0, 62.0, 71.0]}
    await tell(service, lease, 1, "ended", ended=[over])
    window = (await service.get("/v1/breakers/p/m")).json()["window"]
    assert (window["ok"], window["slow"]) == (3, 2)
    stats = (await service.get("/v1/stats?since=hour")).json()
    (resource,) = (each for each in stats["resources"] if each["resource"] == "p/m")
    assert resource["latency"]["p50"] == pytest.approx(62, rel=0.3)


async def test_who_dies_with_a_block_blocks_nobody_for_long(service: httpx.AsyncClient):
    """Once its time is over it is held no more; what it was charged stays spent."""
    assert (await ask(service, "brief/m", 100)).json()["block"]["calls"] == 100
    assert (await ask(service, "brief/m", 100)).json()["reason"] == "scarce"

    async def free() -> bool:
        return await held(service, "brief") == (0, 0)

    await until(free, "the block is held for ever")
    assert (await ask(service, "brief/m", 100)).json()["block"]["calls"] == 100

    assert (await left(service, "brief/m"))["calls"] == 800
