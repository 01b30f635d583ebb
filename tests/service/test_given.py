"""Leases that were given out here: what a settle needs of them is known without their ids."""

from collections.abc import Callable
from pathlib import Path

from tests_support.calls import ask
from tests_support.servers import Server
from tests_support.service import http_client, in_process

from limiter_service.config import parse
from limiter_service.engine.begun import Arrivals
from limiter_service.engine.given import Given, Lease
from limiter_service.engine.policy import Policies
from limiter_service.store.keys import Key
from limiter_wire import Settle, Usage

CONFIG = "pools: {p: {models: {m: {rpm: 100, tpm: 1000}}}}"
WIDER = "pools: {p: {models: {m: {rpm: 100, tpm: 1000, rpd: 5000}}}}"


def test_leases_are_known_up_to_a_number_until_they_are_settled():
    """Then all of them are forgotten, and their ids are read."""
    given, policy = Given(3), Policies(parse(CONFIG, ".yaml"), "x:").policy("p/m", "anybody")
    for name in "abc":
        given.note(name, Lease(policy, Key(name), 1.0, None))
    taken = given.take("b")
    assert taken is not None
    assert taken.key == "b"
    assert given.take("b") is None
    for name in "de":
        given.note(name, Lease(policy, Key(name), 1.0, None))
    assert [name for name in "abcde" if given.take(name)] == ["e"]


async def test_a_lease_from_before_a_reload_is_settled_under_the_limits_of_now(
    server: Server, write_config: Callable[[str], Path]
):
    """What is known of it is of another policy. A repeat has the same answer."""
    async with in_process(server.url, write_config(CONFIG)) as app, http_client(app) as client:
        engine = app._inner.state.engine  # type: ignore[attr-defined]  # a FastAPI application
        await ask(client, "acquire", resource="p/m", tokens=1)
        leases = [
            (await ask(client, "acquire", resource="p/m", tokens=100))["lease"] for _ in range(2)
        ]
        used = {"input_tokens": 30}
        first = await ask(client, "settle", lease=leases[0], usage=used)
        engine.policies = Policies(parse(WIDER, ".yaml"), engine._prefix)
        policy, arrivals = engine.policies.policy("p/m", "default"), Arrivals()
        report = Settle(lease=leases[1], usage=Usage(input_tokens=30))
        begun = engine.begin_settle(report, arrivals)
        assert begun.policy is policy
        await arrivals.of(begun)
        second = engine.conclude_settle(begun)
        assert second.refunded == first["refunded"] == {"tokens": 70}
        again = await ask(client, "settle", lease=leases[0], usage=used)
        assert again == first | {"already_settled": True}
