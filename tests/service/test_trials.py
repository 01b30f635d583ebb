"""Two policies side by side: shadow limits, and what they would have answered."""

from typing import Any

import httpx
from tests_support.calls import ask, refused

from limiter_service.config import parse
from limiter_service.engine.levels import Level
from limiter_service.engine.policy import Policies, Policy
from limiter_service.engine.trials import judge

TWO = """
pools:
  p:
    models:
      m:
        limits:
          - {name: now, meter: tokens, limit: 1000, per: 366d}
          - {name: larger, meter: tokens, limit: 5000, per: 366d, mode: shadow}
          - {name: calls, meter: requests, limit: 100, per: 366d}
          - {name: fewer, meter: requests, limit: 3, per: 366d, mode: shadow}
"""


async def trials(client: httpx.AsyncClient) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Seen, would refuse and would grant, by limit and tenant."""
    found = (await client.get("/v1/stats")).json()["trials"]
    return {
        (each["limit"], each["tenant"]): (each["seen"], each["would_refuse"], each["would_grant"])
        for each in found
    }


async def test_the_difference_is_counted_by_limit_and_tenant(serve: Any):
    """What was granted and would not have been, and the other way round."""
    client = await serve(TWO)
    for _ in range(2):
        await ask(client, "acquire", resource="p/m", tokens=300)
    await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=600, tenant="t")
    await ask(client, "acquire", resource="p/m", tokens=1, tenant="t")
    await ask(client, "acquire", resource="p/m", tokens=1, tenant="t")  # the fourth call
    await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=600, tenant="t")
    assert await trials(client) == {
        ("p/m.larger", "default"): (2, 0, 0),
        ("p/m.fewer", "default"): (2, 0, 0),
        # 600 tokens would have fitted while there was a call left, and not afterwards.
        ("p/m.larger", "t"): (4, 0, 1),
        ("p/m.fewer", "t"): (4, 1, 0),
    }
    metrics = (await client.get("/metrics")).text
    name = "sluicegate_trial_differences_total"
    assert f'{name}{{difference="would_grant",limit="p/m.larger"}} 1.0' in metrics
    assert f'{name}{{difference="would_refuse",limit="p/m.fewer"}} 1.0' in metrics


async def test_a_repeated_request_counts_once(serve: Any):
    """Its answer is a repeat, and so is the difference."""
    client = await serve(TWO)
    for _ in range(4):
        await ask(client, "acquire", resource="p/m", tokens=1, request_id="same")
    assert (await trials(client))["p/m.fewer", "default"] == (1, 0, 0)


async def test_a_check_tells_both_policies(serve: Any):
    """The trial's verdict beside the real one; nothing is counted."""
    client = await serve(TWO)

    async def both(tokens: int) -> tuple[bool, Any]:
        answer = await ask(client, "check", resource="p/m", tokens=tokens)
        return answer["would_grant"], answer["trial"]

    assert await both(900) == (True, {"would_grant": True, "limit": None})
    assert await both(2000) == (False, {"would_grant": True, "limit": "m.larger"})
    assert await both(9000) == (False, {"would_grant": False, "limit": "m.larger"})
    for _ in range(3):
        await ask(client, "acquire", resource="p/m", tokens=1)
    assert await both(900) == (True, {"would_grant": False, "limit": "m.fewer"})
    assert {count for _, *count in (await trials(client)).values() for count in count} == {0}


async def test_without_shadows_there_is_no_trial(client: httpx.AsyncClient):
    """Nothing to compare."""
    assert "trial" not in await ask(client, "check", resource="p/m", tokens=1)
    await ask(client, "acquire", resource="p/m", tokens=1)
    assert await trials(client) == {}


def chain(limits: str) -> Policy:
    """A chain of p/m."""
    text = f"pools: {{p: {{rpm: 5, models: {{m: {{limits: [{limits}]}}}}}}}}"
    return Policies(parse(text, ".yaml"), "x:").policy("p/m", "t")


def at(policy: Policy, *left: float) -> list[Level]:
    """Levels of buckets."""
    pairs = zip(policy.limits, left, strict=True)
    return [Level(limit_id=float(limit.id), cell=(n,), now=0, wall=0) for limit, n in pairs]


def test_a_shadow_stands_for_limits_of_its_scope_and_meter_only():
    """What it does not replace still refuses."""
    policy = chain(
        "{meter: tokens, limit: 10, per: minute},"
        "{name: s, meter: requests, limit: 9, per: minute, mode: shadow}"
    )
    pool_is_short = judge(policy, [1, 5, 1], at(policy, 0, 10, 9))
    tokens_are_short = judge(policy, [1, 5, 1], at(policy, 5, 4, 9))
    assert pool_is_short is not None
    assert tokens_are_short is not None
    assert not pool_is_short.would_grant  # the limit on requests of the pool, not the model
    assert not tokens_are_short.would_grant
    assert pool_is_short.limits == tokens_are_short.limits == ()


def test_several_limits_may_be_replaced_by_one():
    """A minute's and a day's limit by one sliding window."""
    policy = chain(
        "{meter: tokens, limit: 10, per: minute}, {meter: tokens, limit: 99, per: day},"
        "{name: s, meter: tokens, limit: 50, per: hour, mode: shadow}"
    )
    trial = judge(policy, [1, 20, 20, 20], at(policy, 5, 4, 4, 50))
    assert trial is not None
    assert trial.would_grant
    assert [limit.name for limit in trial.limits] == ["m.s"]
    full = judge(policy, [1, 20, 20, 20], at(policy, 5, 4, 4, 19))
    assert full is not None
    assert not full.would_grant
