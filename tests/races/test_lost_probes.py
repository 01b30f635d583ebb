"""Whoever holds a probe dies, is cut off, or comes too late: the place comes back."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from tests_support.crowd import Task
from tests_support.crowd_member import End, Take
from tests_support.races import PATIENT, Fleet
from tests_support.relay import Relay
from tests_support.waiting import until

from limiter_wire import Outcome

pytestmark = PATIENT

LEASE = 0.5
"""Seconds that a probe of the pools `lease` and `patient` may take."""


async def holder(tasks: list[Task], known: set[int]) -> Task:
    """The worker whose call is the next probe."""
    found: list[Task] = []

    async def probes() -> bool:
        found[:] = [task for task in tasks if task.probes and task.member.pid not in known]
        return bool(found)

    await until(probes, "nobody probes", 30)
    known.add(found[0].member.pid)
    return found[0]


async def test_a_killed_probe_makes_room_for_the_next_when_its_lease_ends(recruit: Any):
    """SIGKILL again and again: one more call arrives for each lease that ends, and none before."""
    fleet = await recruit("patient", 12)
    await fleet.trip()
    await fleet.provider.outage(fleet.model, "stall-before-headers")
    before = await fleet.provider.calls(fleet.model)
    tasks = await fleet.all_call()
    known: set[int] = set()
    for _ in range(3):
        (await holder(tasks, known)).member.kill()
    await holder(tasks, known)
    await asyncio.gather(*(task.no_more() for task in tasks if task.member.pid not in known))
    told = await fleet.told()
    lost = [each for each in told if each["type"] == "probe_lost"]
    assert [each["type"] for each in told] == ["breaker", "breaker", *["probe_lost"] * len(lost)]
    assert {each["count"] for each in lost} == {1}
    assert len(lost) >= 3
    assert sum(task.probes for task in tasks) == 1 + len(lost)
    # Who is killed may not have got as far as to call.
    assert await fleet.provider.calls(fleet.model) <= before + 1 + len(lost)
    times = [each["time"] for each in told[1:]]  # by the store's clock
    assert all(later - earlier >= LEASE for earlier, later in pairwise(times))
    view = await fleet.view()
    assert (view["state"], view["probes"]["lost"]) == ("half_open", len(lost))


async def test_probes_that_are_lost_in_a_row_open_the_circuit_again(recruit: Any):
    """Two of them, where the policy says so: something is wrong that kills callers."""
    fleet = await recruit("lease", 8)
    await fleet.trip()
    await fleet.provider.outage(fleet.model, "stall-before-headers")
    tasks = await fleet.all_call()
    known: set[int] = set()
    for _ in range(2):
        (await holder(tasks, known)).member.kill()

    async def opened() -> bool:
        return ("half_open", "open", "probes_lost") in await fleet.transitions()

    await until(opened, "it stays half-open")
    told = await fleet.told()
    kinds = [each["reason"] if each["type"] == "breaker" else each["type"] for each in told]
    assert kinds[1:5] == ["expired", "probe_lost", "probe_lost", "probes_lost"]


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.SERVER_ERROR])
async def test_a_probe_that_reports_after_its_lease_has_no_vote(recruit: Any, outcome: Outcome):
    """Another has its place; neither does a success close, nor a failure open."""
    fleet = await recruit("patient", 4)
    late, other, *_ = fleet.members
    await fleet.trip()
    lease = await fleet.take(late)
    second = await fleet.take(other)
    said = await late.do(End(lease=lease, outcome=outcome))
    assert (said.what, said.breaker) == ("settled", "half_open")
    view = await fleet.view()
    assert (view["state"], view["probes"]["ok"]) == ("half_open", 0)
    # The one in time is believed, unless its own lease has ended meanwhile.
    await other.do(End(lease=second))
    assert (await fleet.view())["probes"]["ok"] <= 1
    assert len(await fleet.transitions()) == 2


async def test_a_lease_that_has_ended_altogether_has_no_vote_either(recruit: Any):
    """The settle is refused, and the circuit is as it was."""
    fleet = await recruit("patient", 4)
    late, other, *_ = fleet.members
    await fleet.trip()
    lease = await fleet.take(late, ttl=1)

    async def over() -> bool:
        held = await fleet.take(other)
        await other.do(End(lease=held, outcome=Outcome.CANCELLED))
        said = await late.do(End(lease=lease, phase="first_token"))
        return said.code == "lease_expired"

    await until(over, "the lease does not end")
    before = await fleet.view()
    said = await late.do(End(lease=lease, outcome=Outcome.SERVER_ERROR))
    assert (said.what, said.code) == ("failed", "lease_expired")
    assert await fleet.view() == before


async def unheard(fleet: Fleet, relay: Relay) -> Task:
    """The first worker has the probe, and does not know it: the answer is on its way."""
    await fleet.trip()

    async def due() -> bool:
        asked = {"resource": fleet.resource, "tokens": 1}
        answer = await fleet.replicas[1].post("/v1/check", json=asked)
        return bool(answer.json()["would_grant"])

    await until(due, "the opening does not end")
    relay.keep_answers()
    task = fleet.members[0].begin(Take(resource=fleet.resource))

    async def probes() -> bool:
        return (await fleet.view())["probes"]["held"] == 1

    await until(probes, "nobody probes")
    assert task.said == []
    return task


async def test_a_worker_that_dies_before_it_hears_of_its_probe_costs_the_lease(
    recruit: Any, replica_urls: list[str]
):
    """Between the script and the reply: the place comes back, as that of a dead holder."""
    with Relay(int(replica_urls[0].rpartition(":")[2])) as relay:
        fleet = await recruit("patient", 4, [relay.url, *replica_urls, replica_urls[1]])
        task = await unheard(fleet, relay)
        task.member.kill()
        await fleet.take(fleet.members[1])
        assert (await fleet.told())[-1]["type"] == "probe_lost"


async def test_a_probe_that_is_called_off_before_it_is_heard_of_is_given_back(
    recruit: Any, replica_urls: list[str]
):
    """The grant that crosses a cancellation frees its place without a vote, long before its lease
    would have ended.
    """
    with Relay(int(replica_urls[0].rpartition(":")[2])) as relay:
        fleet = await recruit("one", 4, [relay.url, *replica_urls, replica_urls[1]])
        task = await unheard(fleet, relay)
        await task.cancel()
        relay.flow()
        await fleet.take(fleet.members[1])
        view = await fleet.view()
        assert (view["state"], view["probes"]["ok"], view["probes"]["lost"]) == ("half_open", 0, 0)
        assert task.count("granted") == 0
