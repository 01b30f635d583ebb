"""The queue's scripts against a plain Python scheduler, over histories from seeds."""

import os
from random import Random

import pytest
import redis
from queue_histories import drawn, run

# The scripts are the same: what another kind of store makes of them shows in a few histories.
PARTS = [("valkey", 0, 100), ("valkey", 100, 100), ("redis", 200, 40)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("server", "first", "count"), PARTS, indirect=["server"])
def test_every_history_ends_as_the_reference_says(db: redis.Redis, first: int, count: int) -> None:
    """Who waits, who is granted in which order, when to look again, what comes back; 240 histories
    over both servers. QUEUE_FIRST_SEED draws others.
    """
    one = run(db)
    first += int(os.environ.get("QUEUE_FIRST_SEED", "0"))
    for seed in range(first, first + count):
        one(drawn(Random(seed)))
