"""The queue's scripts against a plain Python scheduler, over histories from seeds."""

import os
from random import Random

import pytest
import redis
from queue_histories import drawn, run

_HISTORIES = 100
_CHUNKS = 2


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_every_history_ends_as_the_reference_says(db: redis.Redis, chunk: int) -> None:
    """Who waits, who is granted in which order, when to look again, what comes back; 400 histories
    over both servers. QUEUE_FIRST_SEED draws others.
    """
    one = run(db)
    first = int(os.environ.get("QUEUE_FIRST_SEED", "0")) + chunk * _HISTORIES
    for seed in range(first, first + _HISTORIES):
        one(drawn(Random(seed)))
