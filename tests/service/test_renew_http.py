"""POST /v1/renew: a long stream keeps its lease."""

from typing import Any

import httpx
from tests_support.calls import ask, left, refused
from tests_support.waiting import until

SHORT = """
pools:
  p:
    lease_ttl: 400ms
    models:
      m:
        limits:
          - {name: budget, meter: tokens, limit: 1000, per: 366d}
          - {meter: concurrency, limit: 1}
"""


async def in_flight(client: httpx.AsyncClient) -> int:
    """Live leases of the resource."""
    count: int = (await client.get("/v1/resources/p/m")).json()["in_flight"]
    return count


async def test_a_renewed_lease_lives_for_another_ttl(client: httpx.AsyncClient):
    """Without `ttl` it is the pool's; the answer names the lease and what it holds."""
    granted = await ask(client, "acquire", resource="p/m", tokens=10, ttl=5)
    assert await ask(client, "renew", lease=granted["lease"]) == {
        "lease": granted["lease"],
        "expires_in": 600.0,
        "charged": {"tokens": 10, "requests": 1, "concurrency": 1},
    }
    assert (await ask(client, "renew", lease=granted["lease"], ttl=9))["expires_in"] == 9.0


async def test_a_renewed_lease_keeps_its_slot(serve: Any):
    """The slot's deadline moves with the lease: others wait for the new one."""
    client = await serve(SHORT)
    lease = (await ask(client, "acquire", resource="p/m", tokens=10, ttl=30))["lease"]
    await ask(client, "renew", lease=lease, ttl=90)
    found = await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=10)
    assert 30 < found["retry_after"] <= 90
    settled = await ask(client, "settle", lease=lease, usage={"input_tokens": 4})
    assert settled["refunded"] == {"tokens": 6}
    assert await in_flight(client) == 0


async def test_usage_beyond_the_reservation_is_charged_now(client: httpx.AsyncClient):
    """Less than reserved changes nothing; more is charged, once for the same figure."""
    lease = (await ask(client, "acquire", resource="p/m", tokens=100))["lease"]
    for used, expected in ((40, 900), (130, 870), (130, 870), (120, 870)):
        await ask(client, "renew", lease=lease, usage={"output_tokens": used})
        assert await left(client) == expected
    renewed = await ask(client, "renew", lease=lease, usage={"output_tokens": 150})
    assert renewed["charged"]["tokens"] == 150
    settled = await ask(client, "settle", lease=lease, usage={"output_tokens": 160})
    assert settled["debited"] == {"tokens": 10}
    assert await left(client) == 840


async def test_a_settled_lease_cannot_be_renewed(client: httpx.AsyncClient):
    """It has ended: 410, and nothing is charged."""
    lease = (await ask(client, "acquire", resource="p/m", tokens=10))["lease"]
    await ask(client, "settle", lease=lease)
    await refused(client, "renew", 410, "lease_expired", lease=lease, usage={"input_tokens": 99})
    assert await left(client) == 990


async def test_an_expired_lease_cannot_be_renewed(serve: Any):
    """Its slot may be somebody else's by now: 410."""
    client = await serve(SHORT)
    lease = (await ask(client, "acquire", resource="p/m", tokens=10))["lease"]

    async def free() -> bool:
        return await in_flight(client) == 0

    await until(free, "the lease does not expire")
    await refused(client, "renew", 410, "lease_expired", lease=lease)
    assert await in_flight(client) == 0


async def test_an_unknown_lease_cannot_be_renewed(client: httpx.AsyncClient):
    """404, as for settle."""
    await refused(client, "renew", 404, "unknown_lease", lease="nobody")


PROVIDERS = """
pools:
  actual:
    provider: anthropic
    models: {m: {output_tpm: 100000}}
  beforehand:
    provider: openai
    models: {m: {tpm: 100000}}
  money:
    prices: {m: {input: 1, output: 10}}
    models: {m: {limits: [{name: month, meter: cost_usd, limit: 9, per: month, window: calendar}]}}
"""


async def charged(client: httpx.AsyncClient, pool: str, *outputs: int) -> list[dict[str, float]]:
    """What a lease of 100 in and 50 out holds after each report of usage so far."""
    asked = {"resource": f"{pool}/m", "input_tokens": 100, "max_output_tokens": 50}
    lease = (await ask(client, "acquire", **asked))["lease"]
    found = []
    for output in outputs:
        usage = {"input_tokens": 100, "output_tokens": output, "provenance": "partial"}
        found.append((await ask(client, "renew", lease=lease, usage=usage))["charged"])
    await ask(client, "settle", lease=lease, usage={"input_tokens": 100, "output_tokens": 70})
    return found


async def test_a_stream_is_charged_as_its_provider_counts(serve: Any):
    """Where actual output counts, beyond what is held; not where all is charged beforehand."""
    client = await serve(PROVIDERS)
    seen = [each["output_tokens"] for each in await charged(client, "actual", 20, 80, 60, 80)]
    assert seen == [50, 80, 80, 80]
    assert [each["tokens"] for each in await charged(client, "beforehand", 20, 900)] == [100, 100]
    dollars = [each["cost_usd"] for each in await charged(client, "money", 20, 80, 80)]
    assert dollars == [0.0006, 0.0009, 0.0009]
    assert await left(client, "m.month", "money/m") == 9 - 0.0008  # as settled, not as it grew


async def test_unknown_usage_charges_nothing_so_far(serve: Any):
    """What nobody counted is no usage."""
    client = await serve(PROVIDERS)
    lease = (await ask(client, "acquire", resource="actual/m", tokens=10))["lease"]
    usage = {"output_tokens": 900, "provenance": "unknown"}
    renewed = await ask(client, "renew", lease=lease, usage=usage)
    assert renewed["charged"] == {"output_tokens": 10}
