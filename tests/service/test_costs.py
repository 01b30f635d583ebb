"""Budgets: refused in plain words, forecast, and money that is counted exactly."""

import re
from typing import Any

import httpx
import pytest
from tests_support.calls import ask, refused
from tests_support.waiting import until

from limiter_service.config import parse
from limiter_service.engine.costs import Pace, in_words, money, never, spent_budget
from limiter_service.engine.levels import Level
from limiter_service.engine.policy import Policies, Policy

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOON = 20_000 * DAY + DAY // 2  # of some day in UTC

MONEY = """
pools:
  p:
    limits:
      - {name: monthly, meter: cost_usd, limit: 2, per: month, window: calendar}
    models: {m: {}, n: {}}
    prices: {m: {input: 0.15, output: 0.6, cache_read: 0.075}, n: {input: 2, output: 10}}
    tenants:
      team: {limits: [{name: own, meter: cost_usd, limit: 0.5, per: day, window: calendar}]}
"""


def policy(limit: str) -> Policy:
    """The chain of one calendar limit, at noon."""
    text = f"pools: {{p: {{cost_in_requests: true, models: {{m: {{limits: [{limit}]}}}}}}}}"
    found = Policies(parse(text, ".yaml"), "x:").policy("p/m", "t")
    found.chain(NOON)
    return found


DAILY = "{name: daily, meter: cost_usd, limit: 200, per: day, window: calendar}"


def level(chain: Policy, spent: float, wall: float = NOON, begun: float = NOON - DAY // 2) -> Level:
    """The state of the only limit."""
    (limit,) = chain.limits
    return Level(limit_id=float(limit.id), cell=(begun, spent), now=wall, wall=wall)


def test_a_spent_budget_says_which_how_much_and_until_when():
    """Money in dollars, the boundary in the budget's own zone."""
    chain = policy(DAILY)
    (limit,) = chain.limits
    assert spent_budget(chain, limit, 30_000, level(chain, 199_980_000)) == (
        "the budget m.daily of $200.00 per day has $0.02 left and $0.03 are asked for: "
        "$199.98 are spent or held; it begins anew at 2024-10-05T00:00:00+00:00, in 12 h 0 min"
    )
    chain = policy(DAILY.replace("calendar", "calendar, timezone: Asia/Tokyo"))
    (limit,) = chain.limits
    start = NOON + 3 * 3600 * SECOND - DAY
    text = spent_budget(chain, limit, 1, level(chain, 200_000_001, begun=start))
    assert "has $0.00 left and $0.000001 are asked for: $200.00 are spent" in text
    assert text.endswith("2024-10-05T00:00:00+09:00, in 3 h 0 min")


def test_other_budgets_are_counted_in_their_meter():
    """A number of requests or tokens."""
    chain = policy("{name: calls, meter: requests, limit: 10000, per: day, window: calendar}")
    (limit,) = chain.limits
    text = spent_budget(chain, limit, 1, level(chain, 10_000))
    assert text.startswith("the budget m.calls of 10000 requests per day has 0 requests left")
    assert (
        never(limit, 20_000, level(chain, 0))
        == "20000 requests can never fit: m.calls holds at most 10000"
    )


@pytest.mark.parametrize(
    ("dollars", "text"),
    [(0, "$0.00"), (0.5, "$0.50"), (1234.5, "$1,234.50"), (0.000_004, "$0.000004"), (-2, "-$2.00")],
)
def test_money_is_written_as_people_do(dollars: float, text: str):
    """Cents, and more where cents would say nothing."""
    assert money(dollars) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.7, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min"),
     (200_000, "2 d 7 h"), (-5, "0 s")],
)  # fmt: skip
def test_times_are_written_as_people_do(seconds: float, text: str):
    """Two units at most."""
    assert in_words(seconds) == text


def test_a_forecast_goes_by_the_last_minutes():
    """A dollar a minute since noon, whatever the morning was like."""
    chain, pace = policy(DAILY), Pace()
    for minute in range(10):
        spent = 100_000_000 + minute * 1_000_000
        pace.note(chain, [level(chain, spent, NOON + minute * 60 * SECOND)])
    (view,) = pace.views(chain, [level(chain, 109_000_000, NOON + 540 * SECOND)])
    assert view.per_hour == pytest.approx(60)
    assert view.exhausted_in == pytest.approx(91 * 60)
    assert (view.spent, view.limit, view.per) == (109, 200, "day")
    assert view.resets_in == 12 * 3600 - 540


def test_a_budget_that_lasts_has_no_end():
    """The pace since midnight would not spend it before the next one."""
    chain, pace = policy(DAILY), Pace()
    (view,) = pace.views(chain, [level(chain, 90_000_000)])
    assert (view.per_hour, view.exhausted_in) == (pytest.approx(7.5), None)
    (view,) = pace.views(chain, [level(chain, 150_000_000)])
    assert view.exhausted_in == pytest.approx(4 * 3600)
    (view,) = pace.views(chain, [level(chain, 201_000_000)])
    assert view.exhausted_in == 0


def test_a_new_window_begins_without_a_past():
    """Samples from before midnight say nothing, nor does the first half minute."""
    chain, pace = policy(DAILY), Pace()
    midnight = NOON + DAY // 2
    for second in (-120, -60):
        pace.note(chain, [level(chain, 190_000_000, midnight + second * SECOND)])
    chain.chain(midnight)

    def at(second: int, spent: float) -> Level:
        return level(chain, spent, midnight + second * SECOND, begun=midnight)

    pace.note(chain, [at(5, 1_000_000)])
    (view,) = pace.views(chain, [at(10, 1_000_000)])
    assert (view.per_hour, view.exhausted_in) == (None, None)
    (view,) = pace.views(chain, [at(65, 7_000_000)])
    assert view.per_hour == pytest.approx(360)


def test_refunds_are_no_pace():
    """A level that falls is not spent."""
    chain, pace = policy(DAILY), Pace()
    pace.note(chain, [level(chain, 100_000_000)])
    (view,) = pace.views(chain, [level(chain, 90_000_000, NOON + 60 * SECOND)])
    assert (view.per_hour, view.exhausted_in) == (0, None)


async def spend(client: httpx.AsyncClient, model: str, usage: dict[str, int], **fields: Any) -> Any:
    """One call that uses what it reserved."""
    sizes = {"input_tokens": usage["input_tokens"], "max_output_tokens": usage["output_tokens"]}
    cached = {k: v for k, v in usage.items() if k.startswith("cache")}
    asked = {"resource": f"p/{model}", **sizes, **cached, **fields}
    lease = (await ask(client, "acquire", **asked))["lease"]
    return await ask(client, "settle", lease=lease, usage=usage)


async def budget(client: httpx.AsyncClient, resource: str = "p/m", **params: str) -> Any:
    """The budgets of a resource."""
    answer = await client.get(f"/v1/resources/{resource}", params=params)
    return answer.json()["budgets"]


async def test_a_budget_of_several_models_is_one_sum(serve: Any):
    """Whole millionths of a dollar of both, with a cache's price, and nothing lost on the way."""
    client = await serve(MONEY)
    for i in range(20):
        usage = {"input_tokens": 1000 + i, "cache_read_tokens": 500, "output_tokens": 7 * i}
        await spend(client, "m", usage)
        await spend(client, "n", {"input_tokens": 10 + i, "output_tokens": i})
    parts = [
        -(-((500 + i) * 150 + 500 * 75 + 7 * i * 600) // 1000) + (10 + i) * 2 + i * 10
        for i in range(20)
    ]
    (view,) = await budget(client)
    assert view["spent"] == sum(parts) / 1e6
    assert (view["name"], view["meter"], view["limit"]) == ("p.monthly", "cost_usd", 2)


async def test_a_spent_budget_is_refused_in_plain_words(serve: Any):
    """The month's of everybody, or the day's of one tenant; the check says the same."""
    client = await serve(MONEY)
    usage = {"input_tokens": 5, "output_tokens": 49_998}
    await spend(client, "n", usage, tenant="team")
    asked = {"resource": "p/n", "input_tokens": 10, "max_output_tokens": 0, "tenant": "team"}
    found = await refused(client, "acquire", 429, "rate_limited", **asked)
    assert found["limit"] == "team.own"
    assert re.fullmatch(
        r"the budget team\.own of \$0\.50 per day has \$0\.000010 left and \$0\.000020 are asked "
        r"for: \$0\.50 are spent or held; it begins anew at \S+T00:00:00\+00:00, in .+",
        found["detail"],
    )
    assert 0 < found["retry_after"] <= 86_400
    waited = await refused(client, "acquire", 429, "wait_too_long", max_wait=1, **asked)
    assert "the budget team.own of $0.50 per day has" in waited["detail"]
    assert (await ask(client, "check", **asked))["limit"] == "team.own"
    found = await refused(
        client, "acquire", 422, "never_fits", **asked | {"input_tokens": 9_000_000}
    )
    assert "can never fit" in found["detail"]
    views = {view["name"]: view for view in await budget(client, "p/n", tenant="team")}
    assert views["team.own"]["spent"] == views["p.monthly"]["spent"] == 0.49999


async def test_statistics_tell_costs_by_resource_and_tenant(serve: Any):
    """Tokens by kind, dollars by price or as reported; the dearest first. A repeat counts once."""
    client = await serve(MONEY.replace("n: {input: 2, output: 10}", "").replace(", n: {}", ""))
    usage = {"input_tokens": 1000, "cache_read_tokens": 600, "output_tokens": 100}
    await spend(client, "m", {**usage, "reasoning_tokens": 40}, tenant="team")
    lease = (await ask(client, "acquire", resource="p/m", tokens=9))["lease"]
    for _ in range(2):
        await ask(client, "settle", lease=lease, cost_usd=0.25, usage=usage)
    found = (await client.get("/v1/stats")).json()["costs"]
    assert [(each["tenant"], each["calls"], each["cost_usd"]) for each in found] == [
        ("default", 1, 0.25),
        ("team", 1, 0.000165),
    ]
    assert found[1] == {
        "resource": "p/m",
        "tenant": "team",
        "calls": 1,
        "input_tokens": 1000,
        "cached_tokens": 600,
        "output_tokens": 100,
        "reasoning_tokens": 40,
        "cost_usd": 0.000165,
        "unpriced_calls": 0,
    }
    metrics = (await client.get("/metrics")).text
    assert 'sluicegate_cost_usd_total{resource="p/m"} 0.250165' in metrics
    assert 'sluicegate_tokens_total{direction="output",resource="p/m"} 200.0' in metrics


async def test_budgets_are_metrics(serve: Any):
    """As they were when somebody looked: how full, and how long they last."""
    client = await serve(MONEY)
    await spend(client, "n", {"input_tokens": 5, "output_tokens": 49_999})
    await budget(client)
    metrics = (await client.get("/metrics")).text
    assert 'sluicegate_budget_spent_ratio{limit="p/p.monthly"} 0.25' in metrics
    assert 'sluicegate_budget_exhausted_in_seconds{limit="p/p.monthly"}' in metrics


async def test_a_late_settle_still_counts_what_it_cost(serve: Any):
    """Its tokens stay as reserved, and the books know what was used."""
    client = await serve(MONEY.replace("    limits:\n", "    lease_ttl: 100ms\n    limits:\n"))
    lease = (await ask(client, "acquire", resource="p/n", tokens=9))["lease"]

    async def expired() -> bool:
        early = {"lease": lease, "phase": "first_token"}
        return (await client.post("/v1/settle", json=early)).status_code == 410

    await until(expired, "the lease does not expire")
    usage = {"input_tokens": 1_000_000}
    await refused(client, "settle", 410, "lease_expired", lease=lease, usage=usage)
    (found,) = (await client.get("/v1/stats")).json()["costs"]
    assert (found["calls"], found["cost_usd"]) == (1, 2)
