"""Replies are lost one by one, and calls are cancelled at random moments: nothing is charged
twice, mixed up, or left behind.
"""

from pathlib import Path

import httpx
import pytest
import redis
from tests_support.servers import Server, valkey_binary
from tests_support.service import ServiceProcess
from tests_support.trial.scene import established, lost_replies
from tests_support.trial.stores import Standalone
from tests_support.trial.storm import LIMIT, POOLS, storm, unsettled, waiting
from tests_support.waiting import until

pytestmark = pytest.mark.timeout(600)


def test_lost_replies_debit_nobody_twice(tmp_path: Path) -> None:
    """The script has run, its answer is lost, and it is asked for again with the request's id."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    for name in ("s", "w"):
        (tmp_path / name).mkdir()
    with Standalone(binary, tmp_path / "s", 2) as store:
        outcome = lost_replies(store, tmp_path / "w", seed=2, lost=100)
    assert outcome.found.violations == []
    assert outcome.found.twice == 0
    assert outcome.found.repeats > 10
    assert sum(way.lost for way in store.ways) >= 100


@pytest.mark.parametrize("channel", ["only", "off"])
async def test_a_storm_of_cancelled_calls_leaves_nothing(tmp_path: Path, channel: str) -> None:
    """Over a channel and over HTTP: every answer is the caller's own, every lease comes back at
    once, no connection stays.
    """
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    config = tmp_path / "pools.yaml"
    config.write_text(POOLS)
    with (
        Server(binary, tmp_path) as store,
        ServiceProcess("--config", str(config), "--redis-url", store.url) as service,
        redis.Redis(unix_socket_path=str(store.socket)) as orders,
    ):
        found = await storm(service.url, 1000, 3, channel=channel)
        assert found.mixed_up == []
        assert found.ended["acquire cancelled"] > 100
        assert found.ended["settle cancelled"] > 10

        async def nothing_left() -> bool:
            port = int(service.url.rpartition(":")[2])
            return unsettled(orders) == waiting(orders) == established(port) == 0

        await until(nothing_left, "a lease, a place in line, or a connection stays", 30)
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            view = (await client.get("/v1/resources/p/open")).json()
        assert round(LIMIT - view["limits"][0]["remaining"]) == found.spent
