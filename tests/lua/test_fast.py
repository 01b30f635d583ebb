"""What is decided at once is decided as everything else is, alone and in groups."""

from collections.abc import Iterator

import pytest
import redis
from twins import Two, run, two_of

_HISTORIES = 25


@pytest.fixture
def two(db: redis.Redis) -> Iterator[Two]:
    """Two empty databases of one server."""
    yield from two_of(db)


@pytest.mark.timeout(300)
def test_two_stores_are_the_same_after_every_step(two: Two) -> None:
    """Groups and single calls, repeats, conflicts, retries, other limits, learned and held
    ones, reloads, circuits that open, queues, clocks that step back: every answer and every
    byte that is stored. And much of it is really decided at once.
    """
    one, grouped = run(two), 0
    for seed in range(_HISTORIES):
        grouped += one(seed).grouped
    assert grouped > 10 * _HISTORIES
