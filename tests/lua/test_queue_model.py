"""The queue's scripts against a plain Python scheduler, over random histories."""

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from queue_histories import histories, run

_HISTORIES = 100
_CHUNKS = 2


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_every_history_ends_as_the_reference_says(db: redis.Redis, chunk: int) -> None:
    """Who waits, who is granted in which order, when to look again, what comes back: weights,
    priorities, reserved shares, tenants' own limits, deadlines, vanished callers, cancellations,
    refunds, reloads; 400 histories of 60 steps over both servers.
    """
    one = run(db)

    @settings(
        max_examples=_HISTORIES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(histories)
    def check(history: tuple[int, list]) -> None:  # type: ignore[type-arg]  # of steps
        one(history)

    check()
