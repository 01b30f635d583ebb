"""Many processes at once, over HTTP and the SDK: no token is granted twice, none is lost."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from tests_support import fleet
from tests_support.fleet import Plan, Record
from tests_support.servers import Server
from tests_support.service import ServiceProcess

# Each is a load on both cores; one kind of store is enough.
pytestmark = pytest.mark.parametrize("server", ["valkey"], indirect=True)

BUDGET = 5003
EACH = 5
RATE, BURST = 200, 100
SLIDING, PERIOD = 120, 1.0
CONFIG = f"""
pools:
  p:
    models:
      hot: {{limits: [{{meter: tokens, limit: {BUDGET}, per: 366d}}]}}
      "many-*": {{limits: [{{meter: tokens, limit: {EACH}, per: 366d}}]}}
      bucket: {{limits: [{{meter: tokens, limit: {RATE}, per: second, burst: {BURST}}}]}}
      sliding: {{limits: [{{meter: tokens, limit: {SLIDING}, per: {PERIOD}, window: sliding}}]}}
"""


@pytest.fixture
def url(db: redis.Redis, server: Server, write_config: Callable[[str], Path]) -> Iterator[str]:
    """A service in a process of its own."""
    arguments = ["--config", str(write_config(CONFIG)), "--redis-url", server.url]
    with ServiceProcess(*arguments) as running:
        yield running.url


def granted(records: list[Record]) -> int:
    """The tokens of all grants."""
    return sum(record.tokens for record in records)


def test_a_hot_limit_is_granted_to_the_token(url: str):
    """400 tasks of 8 processes that take until nothing is left get exactly what there is."""
    records = fleet.run(Plan(url, tasks=50, resources=["p/hot"], greedy=True), processes=8)
    assert granted(records) == BUDGET


def test_a_thousand_limits_are_granted_to_the_token(url: str):
    """Each resource gives what it has, whoever asks, and nothing of its neighbours'."""
    names = [f"p/many-{i}" for i in range(1000)]
    records = fleet.run(Plan(url, tasks=50, resources=names, rounds=20), processes=8)
    by_resource = Counter[str]()
    for record in records:
        by_resource[record.resource] += record.tokens
    assert by_resource == dict.fromkeys(names, EACH)


def test_a_bucket_grants_its_burst_and_its_rate(url: str):
    """No more than `burst + rate * T`; and what refills is granted again."""
    records = fleet.run(Plan(url, tasks=50, resources=["p/bucket"], rounds=60), processes=4)
    began = min(record.asked for record in records)
    ended = max(record.answered for record in records if record.tokens)
    assert granted(records) <= BURST + RATE * (ended - began)
    assert granted(records) > BURST


def test_a_sliding_window_holds_in_every_period(url: str):
    """However a period is laid over the grants, it contains no more than the limit.

    Waiting for the moment that a refusal names is enough to be served in the end.
    """
    plan = Plan(url, tasks=20, resources=["p/sliding"], rounds=6, max_wait=30)
    records = fleet.run(plan, processes=4)
    assert granted(records) == 4 * 20 * 6
    # A grant happened between question and answer, so one that lies within a period
    # with both of them lies within it for sure.
    spans = sorted((record.answered - PERIOD, record.answered) for record in records)
    worst = max(
        sum(record.tokens for record in records if begin < record.asked and record.answered <= end)
        for begin, end in spans
    )
    assert worst <= SLIDING
