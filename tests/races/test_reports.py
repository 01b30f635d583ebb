"""What workers report at the same time, too late, twice, or from before."""

import asyncio
from typing import Any

import pytest
from dirty_equals import IsPartialDict
from tests_support.crowd_member import Call, End, Take
from tests_support.races import CROWD, PATIENT, distinct
from tests_support.waiting import until

from limiter_wire import Outcome

pytestmark = PATIENT

OPENED = ("closed", "open", "failure_rate")


async def test_two_hundred_failures_at_once_are_one_trip(recruit: Any):
    """One event, the same at every replica; the time that it stays open is the first, not the
    hundredth.
    """
    fleet = await recruit("long", 40)
    take = Take(resource=fleet.resource)
    taken = await asyncio.gather(*(each.do(take) for each in fleet.members for _ in range(5)))
    assert all(said.what == "granted" for said in taken)
    call = Call(resource=fleet.resource, fault="server-error")
    leases = iter(said.lease for said in taken)
    calls = [
        member.begin(Call(resource=call.resource, lease=next(leases), fault=call.fault))
        for member in fleet.members
        for _ in range(5)
    ]
    ended = await asyncio.gather(*(each.end() for each in calls))
    assert {said.outcome for said in ended} == {"HTTPStatusError"}
    (told,) = await fleet.told()
    assert told == IsPartialDict(type="breaker", to="open", generation=2, lasts=60)
    assert await fleet.view() == IsPartialDict(
        state="open", generation=2, open_count=1, next_open_duration=60
    )
    assert await fleet.provider.calls(fleet.model) == 200


@pytest.mark.parametrize("state", ["open", "half_open"])
async def test_reports_of_calls_from_before_an_outage_change_nothing(recruit: Any, state: str):
    """Neither do forty late successes close, nor do late failures open or prolong."""
    fleet = await recruit("long" if state == "open" else "one", 10)
    take = Take(resource=fleet.resource)
    old = await asyncio.gather(*(each.do(take) for each in fleet.members for _ in range(4)))
    await fleet.trip()
    if state == "half_open":
        await fleet.take(fleet.members[0])
    before = await fleet.view()
    assert before["state"] == state
    ends = [Outcome.SUCCESS, Outcome.SERVER_ERROR, Outcome.SUCCESS, Outcome.TIMEOUT]
    said = await asyncio.gather(
        *(
            fleet.members[i // 4].do(End(lease=each.lease, outcome=ends[i % 4]))
            for i, each in enumerate(old)
        )
    )
    assert {(each.what, each.breaker) for each in said} == {("settled", state)}
    after = await fleet.view()
    moving = {"retry_after", "reason"}
    assert {k: v for k, v in after.items() if k not in moving} == {
        k: v for k, v in before.items() if k not in moving
    }


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.SERVER_ERROR])
async def test_a_probe_that_is_settled_by_many_at_once_votes_once(recruit: Any, outcome: Outcome):
    """Ten processes through two replicas: one settles it, the others hear the same."""
    fleet = await recruit("one", 10)
    await fleet.trip()
    lease = await fleet.take(fleet.members[0])
    end = End(lease=lease, outcome=outcome)
    said = await asyncio.gather(*(member.do(end) for member in fleet.members))
    assert sorted(each.again for each in said) == [False, *[True] * 9]
    failed = outcome is Outcome.SERVER_ERROR
    assert {each.breaker for each in said} == {"open" if failed else "half_open"}
    view = await fleet.view()
    assert (view["probes"]["ok"], view["open_count"]) == ((0, 2) if failed else (1, 1))
    assert len(await fleet.transitions()) == (3 if failed else 2)


async def test_a_limit_that_refuses_a_whole_crowd_leaves_the_circuit_as_it_is(recruit: Any):
    """No probe is taken, nothing is told, until somebody asks who fits."""
    fleet = await recruit("tight", CROWD // 2)
    await fleet.members[0].do(Take(resource=fleet.resource))  # a token that does not come back
    await fleet.trip()
    large = Take(resource=fleet.resource, tokens=100)

    async def due() -> bool:
        said = await asyncio.gather(*(member.do(large) for member in fleet.members))
        return {each.code for each in said} == {"rate_limited"}

    await until(due, "the opening does not end", 30)
    view = await fleet.view()
    assert (view["state"], view["generation"], view["probes"]["held"]) == ("open", 2, 0)
    assert await fleet.transitions() == [OPENED]
    *others, small = fleet.members
    tasks = [member.begin(large) for member in others]
    tasks.append(small.begin(Take(resource=fleet.resource)))
    *refused, granted = await asyncio.gather(*(task.end() for task in tasks))
    assert (granted.what, granted.probe) == ("granted", True)
    assert {each.code for each in refused} <= {"rate_limited", "breaker_open"}
    assert (await fleet.view())["probes"]["held"] == 1


async def test_of_many_pauses_that_the_provider_asks_for_the_longest_holds(recruit: Any):
    """Whoever reports last: a shorter wish ends no longer one, and none is a failure."""
    fleet = await recruit("long", 21)
    take = Take(resource=fleet.resource)
    taken = await asyncio.gather(*(each.do(take) for each in fleet.members))
    pauses = [59 if nth == 17 else 1 + nth % 8 for nth in range(21)]
    calls = [
        Call(resource=fleet.resource, lease=said.lease, fault=f"rate-limit; retry-after={pause}")
        for said, pause in zip(taken, pauses, strict=True)
    ]
    *crowd, last = zip(fleet.members, calls, strict=True)
    await asyncio.gather(*(member.do(call) for member, call in crowd))
    await last[0].do(last[1])
    view = await fleet.view()
    assert (view["state"], view["window"]["throttle"], view["window"]["fail"]) == ("closed", 21, 0)
    (told,) = await fleet.told()
    assert told["type"] == "cooldown"
    # By the store's clock: the pause was told when the first report came, not after the longest.
    assert view["cooldown_until"] >= told["time"] + 59
    assert view["reason"] == "cooldown"
    said = await fleet.members[0].do(take)
    assert (said.what, said.code) == ("refused", "cooldown")


async def test_one_bad_worker_of_fifty_does_not_stop_the_fleet(recruit: Any):
    """However often it fails, and though most calls have failed by then; a second one does."""
    names = distinct(3)
    fleet = await recruit("long", [*names, *(f"well{n}" for n in range(47))])
    ill, second, *well = fleet.members
    fail = Call(resource=fleet.resource, fault="server-error")
    good = Call(resource=fleet.resource)
    said = await asyncio.gather(
        *(member.do(good) for member in well), *(ill.do(fail) for _ in range(150))
    )
    assert {each.what for each in said} == {"settled"}
    view = await fleet.view()
    assert view == IsPartialDict(state="closed", window=IsPartialDict(ok=48, fail=150))
    assert (view["rates"]["failure"]["rate"], view["window"]["failing_workers"]) == (150 / 198, 1)
    assert (await second.do(fail)).breaker == "open"
    assert await fleet.transitions() == [OPENED]


async def test_an_override_that_ends_in_a_round_of_probes_begins_a_new_one(recruit: Any):
    """The probe of before has no vote any more, and of a whole crowd one takes its place."""
    fleet = await recruit("one", CROWD // 2)
    holder, *others = fleet.members
    await fleet.trip()
    old = await fleet.take(holder)
    path = f"/v1/breakers/{fleet.resource}/override"
    order = {"mode": "open", "ttl": 0.5, "reason": "drill"}
    (await fleet.replicas[1].put(path, json=order)).raise_for_status()
    await fleet.provider.outage(fleet.model, "stall-before-headers")
    tasks = await fleet.all_call(others)

    async def probed() -> bool:
        return sum(task.probes for task in tasks) == 1

    await until(probed, "nobody probes after the override", 30)
    said = await holder.do(End(lease=old))
    assert (said.what, said.breaker) == ("settled", "half_open")
    await fleet.all_refused([task for task in tasks if not task.probes])
    assert sum(task.count("granted") for task in tasks) == 1
    view = await fleet.view()
    assert view == IsPartialDict(state="half_open", override=None)
    assert (view["probes"]["held"], view["probes"]["ok"]) == (1, 0)
    told = [(each["type"], each["from"], each["to"]) for each in await fleet.told()]
    assert told == [
        ("breaker", "closed", "open"),
        ("breaker", "open", "half_open"),
        ("override", "none", "open"),
        ("breaker", "half_open", "open"),
        ("override", "open", "none"),
        ("breaker", "open", "half_open"),
    ]
