"""Limits that are learned and held, against a plain Python reference, over random histories."""

from random import Random

import pytest
import redis
from learning_histories import drawn, run

_HISTORIES = 150
_CHUNKS = 2


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_limits_are_learned_as_the_reference_says(db: redis.Redis, chunk: int) -> None:
    """Statements, corrections, overrides and their ends among acquires, settles and reloads:
    600 histories of 50 steps over both servers, every level, limit and event compared, and
    nothing granted above what is known.
    """
    one = run(db)
    for seed in range(chunk * _HISTORIES, (chunk + 1) * _HISTORIES):
        try:
            one(drawn(Random(seed)))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
