"""Groups of acquires against a plain Python reference, over random histories."""

from random import Random

import pytest
import redis
from group_histories import run
from histories import CONFIGS, drawn

_HISTORIES = 50


@pytest.mark.timeout(300)
def test_every_one_of_a_group_is_answered_as_the_reference_says(db: redis.Redis) -> None:
    """Acquires of a moment are grouped where they are of one chain, among settles, renewals,
    expiry, reloads and clocks that jump; what groups leave over is asked for alone.
    """
    one, grouped = run(db), 0
    for seed in range(_HISTORIES):
        random = Random(seed)
        _, steps = drawn(random)
        try:
            grouped += one((seed % len(CONFIGS), _crowded(steps, random)))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
    assert grouped > _HISTORIES


def _crowded(steps: list, random: Random) -> list:  # type: ignore[type-arg]  # of steps
    """The same, where some ask several times."""
    return [
        each
        for step in steps
        for each in [step] * (random.randint(1, 4) if step.kind == "acquire" else 1)
    ]
