"""Limits that are learned and held, against a plain Python reference, over random histories."""

from random import Random

import pytest
import redis
from learning_histories import drawn, drawn_with_ramps, run

# The scripts are the same: what another kind of store makes of them shows in a few histories.
PARTS = [("valkey", 0, 100), ("valkey", 100, 100), ("valkey", 200, 100), ("redis", 300, 40)]
_RAMPS = 60


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("server", "first", "count"), PARTS, indirect=["server"])
def test_limits_are_learned_as_the_reference_says(db: redis.Redis, first: int, count: int) -> None:
    """Statements, corrections, overrides and their ends among acquires, settles and reloads:
    340 histories of 50 steps over both servers, every level, limit and event compared, and
    nothing granted above what is known.
    """
    one = run(db)
    for seed in range(first, first + count):
        try:
            one(drawn(Random(seed)))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.timeout(300)
def test_ramps_are_held_as_the_reference_says(valkey_db: redis.Redis) -> None:
    """The same with limits that have ramps, which operators hold and no provider states."""
    one = run(valkey_db)
    for seed in range(_RAMPS):
        try:
            one(drawn_with_ramps(Random(seed)))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
