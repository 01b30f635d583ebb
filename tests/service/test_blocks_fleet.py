"""Processes that hold blocks: together they keep within the limit, also when one is killed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from tests_support import fleet
from tests_support.fleet import Plan
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from tests_support.waiting import wait_until

# Each is a load on both cores; one kind of store is enough.
pytestmark = pytest.mark.parametrize("server", ["valkey"], indirect=True)

BUDGET = 20_003
RATE, BURST = 2000, 500
CONFIG = f"""
pools:
  p:
    blocks: {{share: 0.02, hold: 1s}}
    models:
      hot: {{limits: [{{meter: tokens, limit: {BUDGET}, per: 366d}}]}}
      bucket: {{limits: [{{meter: tokens, limit: {RATE}, per: second, burst: {BURST}}}]}}
      held: {{limits: [{{name: calls, meter: requests, limit: 5000, per: 366d}}]}}
"""


@pytest.fixture
def url(db: redis.Redis, server: Server, write_config: Callable[[str], Path]) -> Iterator[str]:
    """A service in a process of its own."""
    arguments = ["--config", str(write_config(CONFIG)), "--redis-url", server.url]
    with ServiceProcess(*arguments) as running:
        yield running.url


def left(url: str, model: str) -> float:
    """What remains of the only limit of a model."""
    (limit,) = httpx.get(f"{url}/v1/resources/p/{model}").json()["limits"]
    remaining: float = limit["remaining"]
    return remaining


def held(url: str) -> float:
    """Calls that are held in blocks."""
    name = 'sluicegate_blocks_held{meter="requests",pool="p"} '
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(name)).removeprefix(name))


def test_processes_that_hold_blocks_are_never_granted_more_than_there_is(url: str):
    """What they were granted is what the limit has lost: nothing twice, and nothing is stranded."""
    plan = Plan(url, tasks=20, resources=["p/hot"], greedy=True, prefetch=50)
    records = fleet.run(plan, processes=4)
    granted = sum(record.tokens for record in records)
    assert granted <= BUDGET
    assert left(url, "hot") == pytest.approx(BUDGET - granted, abs=1)
    assert any(record.handed for record in records)
    assert granted >= 0.9 * BUDGET


def test_in_any_time_they_are_granted_what_a_bucket_gives_and_what_blocks_may_hold(url: str):
    """Between any two moments: burst, rate, and the share that was charged before it was spent."""
    plan = Plan(url, tasks=10, resources=["p/bucket"], rounds=300, prefetch=50)
    records = [each for each in fleet.run(plan, processes=4) if each.tokens]
    records.sort(key=lambda each: each.answered)
    ahead = 0.02 * BURST
    for i in range(0, len(records), 50):
        spent = 0
        for each in records[i:]:
            if each.asked < records[i].answered:
                continue
            spent += each.tokens
            time = each.answered - records[i].asked
            assert spent <= BURST + RATE * time + ahead + 1


def test_who_is_killed_holds_nothing_for_long(url: str):
    """What it was lent is spent, and others are lent as much as before."""
    command = [sys.executable, "-m", "tests_support.block_holder", url]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    wait_until(lambda: held(url) == 0, "a dead process holds a block")
    body = {"resource": "p/held", "tokens": 1, "block": 100}
    answer = httpx.post(f"{url}/v1/acquire", json=body).json()
    assert answer["block"]["calls"] == 100
