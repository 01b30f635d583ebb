"""A rollout under load: every replica is replaced, and no caller can tell."""

from pathlib import Path

import pytest
from tests_support.rollout import REPLICAS, Fleet, rolling_restart
from tests_support.servers import Server, valkey_binary

pytestmark = pytest.mark.timeout(240)
WAITERS = 60


async def test_replicas_are_replaced_one_by_one(tmp_path: Path) -> None:
    """No acquire fails, everybody keeps the place, the books balance, and each replica that was
    told to end does, with code 0.
    """
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    with Server(binary, tmp_path) as store, Fleet(tmp_path, store.url) as fleet:
        figures = await rolling_restart(
            fleet, WAITERS, over_http=WAITERS // 3, takers=4, say=lambda _: None
        )
    assert figures.errors == []
    assert figures.order == list(range(WAITERS))
    assert figures.granted == figures.spent > 0
    assert [code for code, _ in figures.exits] == [0] * REPLICAS
