"""Calls that are handed out of a block, against a real service."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests_support.waiting import until

from client_sdk import (
    BreakerOpen,
    Lease,
    Limiter,
    LimiterOptions,
    Outcome,
    Usage,
)
from limiter_wire import Cause, Settle

Left = Callable[..., float]
Held = Callable[[str], float]

CALLS = 20


@pytest.fixture
async def eager(url: str) -> AsyncIterator[Limiter]:
    """A limiter that holds blocks."""
    async with Limiter(url, prefetch=CALLS) as connected:
        yield connected


def is_handed(lease: Lease) -> bool:
    """Whether a lease was handed out here."""
    return lease.id.startswith("block.")


class Calls:
    """Makes calls until one is handed out, and counts them."""

    def __init__(self, limiter: Limiter, resource: str = "lends/m") -> None:
        self._limiter, self._resource = limiter, resource
        self.made = 0

    async def one(self) -> bool:
        """Whether a call of 10 tokens, of which it uses 6, is handed out."""
        async with self._limiter.acquire(self._resource, tokens=10) as lease:
            self.made += 1
            lease.used(input_tokens=4, output_tokens=2)
            return is_handed(lease)

    async def until_handed(self) -> None:
        """Call until one is handed out."""
        await until(self.one, "no block comes")


async def test_calls_that_come_often_are_handed_out(eager: Limiter, left: Left, held: Held):
    """Out of a block that is charged in full, and then the next; what was not used comes back."""
    calls = Calls(eager)
    await calls.until_handed()
    assert 2 <= held("lends") <= 2 * CALLS
    assert left("m.calls", pool="lends") < 1000 - calls.made
    for _ in range(50):
        await calls.one()
    await eager.aclose()
    assert held("lends") == 0
    assert left("m.calls", pool="lends") == 1000 - calls.made
    assert left("m.budget", pool="lends") == pytest.approx(100_000 - 6 * calls.made, abs=1)


async def test_what_was_handed_out_stands_in_the_statistics(eager: Limiter, url: str):
    """Of this process at once, of the fleet when its block has ended."""
    calls = Calls(eager, "lends/counted")
    await calls.until_handed()
    async with eager.acquire("lends/counted", tokens=10) as lease:
        assert is_handed(lease)
        lease.observed(latency=2.0, ttft=0.5)
        lease.used(input_tokens=4, output_tokens=2)
    (local,) = (await eager.stats()).local
    assert local.granted == local.outcomes["success"] == calls.made + 1
    assert local.input_tokens == 4 * (calls.made + 1)
    assert local.latency is not None
    assert local.latency.max == 2.0
    await eager.aclose()
    assert fleet(url) == (calls.made + 1, {"success": calls.made + 1})


async def test_nothing_is_held_unless_it_is_asked_for(limiter: Limiter, held: Held):
    """`prefetch` is 0 by default."""
    calls = Calls(limiter)
    for _ in range(50):
        assert not await calls.one()
    assert held("lends") == 0


async def test_what_is_not_called_for_goes_back_soon(eager: Limiter, left: Left, held: Held):
    """When the time is over for which the pool lets it be held, without anybody's doing."""
    calls = Calls(eager, "briefly/m")
    await calls.until_handed()

    async def given_back() -> bool:
        return held("briefly") == 0 and left("m.calls", pool="briefly") == 1000 - calls.made

    await until(given_back, "the block is held for ever")


async def test_what_is_held_goes_back_while_others_wait(eager: Limiter, url: str, held: Held):
    """For whatever limit of the pool, though there is time left to hold it."""
    calls = Calls(eager)
    await calls.until_handed()
    assert held("lends") > 0
    assert [ask(url, "lends/tight").status_code for _ in range(2)] == [200, 202]

    async def given_back() -> bool:
        return held("lends") == 0

    await until(given_back, "it is held though somebody waits")
    async with eager.acquire("lends/n", tokens=1) as lease:
        assert not is_handed(lease)


async def test_a_failure_is_told_at_once_and_ends_the_block(eager: Limiter, left: Left, held: Held):
    """The circuit opens for everybody, and what was held goes back."""
    calls = Calls(eager)
    await calls.until_handed()
    lease = await eager.acquire("lends/m", tokens=10)
    assert is_handed(lease)
    lease.observed(cause=Cause(status=500))
    await lease.settle(Outcome.SERVER_ERROR)

    async def given_back() -> bool:
        return held("lends") == 0

    await until(given_back, "the failure is not told")
    assert (await eager.breaker("lends/m")).state == "open"
    assert left("m.calls", pool="lends") == 1000 - calls.made - 1
    with pytest.raises(BreakerOpen):
        await eager.acquire("lends/m", tokens=10)


async def test_a_lease_that_is_handed_out_is_one_like_others(eager: Limiter, left: Left):
    """It shows what it holds, is renewed, and answers a second settle like the first."""
    calls = Calls(eager)
    await calls.until_handed()
    lease = await eager.acquire("lends/m", input_tokens=6, max_output_tokens=4)
    assert is_handed(lease)
    assert lease.charged == {"requests": 1, "tokens": 10}
    assert (lease.resource, lease.degraded, lease.suggested_max_tokens) == ("lends/m", False, None)
    assert 0 < lease.expires_in <= 1200
    assert lease.request_id
    assert (await lease.answering(0.1)).settled is False
    assert (await lease.renew(usage=Usage(input_tokens=14))).charged["tokens"] == 14
    lease.used(input_tokens=15)
    first = await lease.settle()
    again = await lease.settle()
    assert (first.already_settled, again.already_settled) == (False, True)
    assert first.debited == again.debited == {"tokens": 1}
    await eager.aclose()
    assert left("m.budget", pool="lends") == pytest.approx(100_000 - 6 * calls.made - 15, abs=1)


async def test_it_is_settled_and_renewed_by_its_id_too(eager: Limiter, left: Left):
    """In this process: no other knows it."""
    calls = Calls(eager)
    await calls.until_handed()
    name = (await eager.acquire("lends/m", tokens=10)).id
    assert (await eager.renew(name)).charged["tokens"] == 10
    report = Settle(lease=name, usage=Usage(input_tokens=3), latency=1.0)
    assert (await eager.settle(report)).refunded == {"tokens": 7}
    assert (await eager.settle(report)).already_settled
    await eager.aclose()
    assert left("m.budget", pool="lends") == pytest.approx(100_000 - 6 * calls.made - 3, abs=1)


async def test_a_call_under_way_keeps_what_it_holds_when_the_limiter_is_closed(
    eager: Limiter, left: Left
):
    """As a lease that nobody settles does: it may have spent it."""
    calls = Calls(eager)
    await calls.until_handed()
    assert is_handed(await eager.acquire("lends/m", tokens=10))
    await eager.aclose()
    assert left("m.calls", pool="lends") == 1000 - calls.made - 1
    assert left("m.budget", pool="lends") == pytest.approx(100_000 - 6 * calls.made - 10, abs=1)


@pytest.mark.parametrize(
    "more",
    [
        {"request_id": "mine"},
        {"route": "summary"},
        {"cost_usd": 0.1},
        {"attempt": 2},
        {"ttl": 60.0},
        {"worker": "another"},
        {"tenant": "another"},
    ],
)
async def test_what_the_service_has_to_know_of_is_asked_for(eager: Limiter, more: dict[str, Any]):
    """Names, routes, costs, retries, lives and other tenants are none of a block's."""
    await Calls(eager).until_handed()
    async with eager.acquire("lends/m", tokens=10, **more) as lease:
        assert not is_handed(lease)


async def test_what_does_not_fit_in_a_block_is_asked_for(eager: Limiter):
    """And the block is still there for those that do."""
    calls = Calls(eager)
    await calls.until_handed()
    async with eager.acquire("lends/m", tokens=10_000) as lease:
        assert not is_handed(lease)
    assert await calls.one()


async def test_functions_that_are_limited_are_handed_out_too(eager: Limiter, left: Left):
    """What a function raises ends its call, and what it returns says what it has used."""
    calls = Calls(eager)
    await calls.until_handed()

    async def ask_model() -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}

    await eager.call(ask_model, resource="lends/m", tokens=10)

    async def fails() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await eager.call(fails, resource="lends/m", tokens=10)
    await eager.aclose()
    spent = 6 * calls.made + 7 + 10
    assert left("m.budget", pool="lends") == pytest.approx(100_000 - spent, abs=1)


async def test_pools_that_do_not_lend_are_asked_for_every_call(eager: Limiter, left: Left):
    """A concurrency limit counts calls under way, which nobody can hold in advance."""
    calls = Calls(eager, "p/m")
    for _ in range(30):
        assert not await calls.one()
    assert left("m.calls") == 970


@pytest.mark.parametrize("channel", ["only", "off"])
async def test_blocks_come_over_either_way(url: str, left: Left, channel: str):
    """Over HTTP nobody calls them back; they go back when their time is over."""
    options = LimiterOptions(channel=channel)
    async with Limiter(url, prefetch=CALLS, options=options) as limiter:
        calls = Calls(limiter)
        await calls.until_handed()
    assert left("m.calls", pool="lends") == 1000 - calls.made


@pytest.mark.parametrize("prefetch", [-1, 10_001])
def test_a_block_has_its_bounds(prefetch: int):
    """What is out of them is refused when the limiter is made."""
    with pytest.raises(ValueError, match="prefetch"):
        Limiter("http://127.0.0.1:1", prefetch=prefetch)


def fleet(url: str) -> tuple[int, dict[str, int]]:
    """What the service says of all calls: grants, and how they ended."""
    found = httpx.get(f"{url}/v1/stats").json()["resources"]
    (resource,) = (each for each in found if each["resource"] == "lends/counted")
    return resource["granted"], resource["outcomes"]


def ask(url: str, resource: str) -> httpx.Response:
    """Acquire without the SDK, and wait without being held."""
    body = {"resource": resource, "tokens": 1, "max_wait": 2999, "hold": 0}
    return httpx.post(f"{url}/v1/acquire", json=body)
