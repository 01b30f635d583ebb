"""Calls are cancelled at random moments: no answer is mixed up, and nothing is left behind."""

from collections.abc import Iterator

import httpx
import pytest
import redis
from tests_support.servers import Server
from tests_support.service import service_with_store
from tests_support.trial.scene import established
from tests_support.trial.storm import LIMIT, POOLS, storm, unsettled, waiting
from tests_support.waiting import until

pytestmark = pytest.mark.timeout(600)
CALLS = 700


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A store, and the URL of a service over it."""
    with service_with_store(tmp_path_factory.mktemp("storm"), POOLS) as found:
        yield found


@pytest.mark.parametrize("channel", ["only", "off"])
async def test_a_storm_of_cancelled_calls_leaves_nothing(
    running: tuple[Server, str], channel: str
) -> None:
    """Over a channel and over HTTP: every answer is the caller's own, every lease comes back at
    once, no connection stays, and the level is what the reports say.
    """
    store, url = running
    with redis.Redis(unix_socket_path=str(store.socket)) as orders:
        orders.flushdb()
        found = await storm(url, CALLS, 3, channel=channel)
        assert found.mixed_up == []
        assert found.ended["acquire cancelled"] > CALLS // 10
        assert found.ended["settle cancelled"] > 0

        async def nothing_left() -> bool:
            port = int(url.rpartition(":")[2])
            return unsettled(orders) == waiting(orders) == established(port) == 0

        await until(nothing_left, "a lease, a place in line, or a connection stays", 30)
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        view = (await client.get("/v1/resources/p/open")).json()
    assert round(LIMIT - view["limits"][0]["remaining"]) == found.spent
