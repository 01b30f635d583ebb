"""The scripts against a plain Python reference, over random histories."""

import pytest
import redis
from histories import histories, run
from hypothesis import HealthCheck, Phase, given, settings

_HISTORIES = 300
_CHUNKS = 4


@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_every_history_ends_as_the_reference_says(db: redis.Redis, chunk: int) -> None:
    """Acquire, settle, renew, check, expiry, reload, clocks that jump: 2,400 histories of 50
    steps over both servers, every answer and level compared, conservation checked.
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
