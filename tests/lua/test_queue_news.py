"""What those hear who are held: where they stand, and that waiting has become pointless."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
import redis
from tests_support.replica import Replica
from tests_support.scripts import POOL

from limiter_service.engine.queueing import NEWS
from limiter_service.engine.refusals import Refusal
from limiter_service.simulation.virtual_time import run
from limiter_wire import Acquire, Granted, Override, Settle, Waiting

CONFIG = f"""
pools:
  {POOL}:
    models:
      slow: {{limits: [{{meter: tokens, limit: 2, per: second, burst: 2}}]}}
      taken: {{concurrency: 1}}
      free: {{}}
    queue: {{max_wait: 1h}}
    breaker: {{}}
"""


class Caller:
    """Somebody who waits, and what it hears: loop time and news."""

    def __init__(
        self, replica: Replica, model: str, max_wait: float, name: str, *, listens: bool = True
    ) -> None:
        self.heard: list[tuple[float, Waiting]] = []
        request = Acquire(resource=f"{POOL}/{model}", tokens=1, max_wait=max_wait, request_id=name)
        loop = asyncio.get_running_loop()

        def tell(waiting: Waiting) -> None:
            self.heard.append((loop.time(), waiting))

        self.task = asyncio.ensure_future(
            replica.engine.acquire(request, None, tell if listens else None)
        )

    @property
    def positions(self) -> list[int]:
        """Where it stood."""
        return [waiting.queue.position for _, waiting in self.heard]


async def take_all(replica: Replica, model: str, tokens: int) -> str:
    """Use a budget up."""
    request = Acquire(resource=f"{POOL}/{model}", tokens=tokens, request_id="first")
    granted = await replica.engine.acquire(request)
    assert isinstance(granted, Granted)
    return granted.lease


async def ended(replica: Replica, *tasks: "asyncio.Task[Any]") -> None:
    """Nobody waits any more."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await replica.engine.passes.aclose()


def test_who_is_held_hears_when_its_place_has_changed(valkey_db: redis.Redis) -> None:
    """At first and then each second at most, down to the first place, and never the same."""

    async def story() -> None:
        replica = Replica(valkey_db, CONFIG)
        await take_all(replica, "slow", 2)
        callers = []
        for n in range(9):
            callers.append(Caller(replica, "slow", 100, f"r{n}"))
            await asyncio.sleep(0.01)
        await asyncio.wait([caller.task for caller in callers])
        times = [time for time, _ in callers[-1].heard]
        assert callers[-1].positions[0] == 8
        assert callers[-1].positions[-1] <= 2
        assert callers[-1].positions == sorted(callers[-1].positions, reverse=True)
        assert all(b - a >= NEWS for a, b in pairwise(times))
        waits = [waiting.predicted_wait for _, waiting in callers[-1].heard]
        assert waits == sorted(waits, reverse=True)
        assert callers[-1].task.result().waited == pytest.approx(waits[0], rel=0.2)
        await ended(replica, *(caller.task for caller in callers))

    run(story())


def test_news_of_a_crowd_cost_no_more_than_those_of_a_few(valkey_db: redis.Redis) -> None:
    """A hundred questions a second, however many wait; who hears nothing new hears nothing."""

    async def story() -> None:
        replica = Replica(valkey_db, CONFIG)
        await take_all(replica, "taken", 1)
        callers = [Caller(replica, "taken", 3000, f"r{n}") for n in range(300)]
        await asyncio.sleep(5)
        replica.store.calls.clear()
        heard = sum(len(caller.heard) for caller in callers)
        await asyncio.sleep(10)
        assert replica.store.calls["enqueue"] <= 1001
        assert sum(len(caller.heard) for caller in callers) - heard <= 1001
        assert replica.store.calls["enqueue"] > 300
        await ended(replica, *(caller.task for caller in callers))

    run(story())


def test_an_opening_is_told_to_all_who_cannot_wait_that_long(valkey_db: redis.Redis) -> None:
    """Also in the middle of a line, before they would have asked again; who can wait stays."""

    async def story() -> None:
        replica = Replica(valkey_db, CONFIG)
        lease = await take_all(replica, "taken", 1)
        loop, order = asyncio.get_running_loop(), Override(mode="open", ttl=60)
        patient = Caller(replica, "taken", 3000, "patient")
        await asyncio.sleep(0.1)
        hasty = [Caller(replica, "taken", 50, f"r{n}", listens=False) for n in range(5)]
        await asyncio.sleep(0.1)
        await replica.circuits.hold(f"{POOL}/taken", order, "operator")
        opened = loop.time()
        await asyncio.wait([caller.task for caller in hasty])
        assert loop.time() - opened < 2
        for caller in hasty:
            with pytest.raises(Refusal) as caught:
                caller.task.result()
            assert caught.value.problem.reason == "forced_open"
        assert not patient.task.done()
        await replica.engine.settle(Settle(lease=lease))
        await replica.circuits.release(f"{POOL}/taken", None, "operator")
        await ended(replica, patient.task)

    run(story())


def test_a_model_without_limits_can_be_waited_for(valkey_db: redis.Redis) -> None:
    """While its circuit is open."""

    async def story() -> None:
        replica = Replica(valkey_db, CONFIG)
        await replica.circuits.hold(f"{POOL}/free", Override(mode="open", ttl=5), "operator")
        caller = Caller(replica, "free", 30, "r")
        granted = await caller.task
        assert isinstance(granted, Granted)
        assert 4 < granted.waited < 6
        assert caller.positions[0] == 0
        await replica.engine.passes.aclose()

    run(story())
