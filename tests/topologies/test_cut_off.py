"""A primary that is cut off from its like, and not from its callers: they go to its heir."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support.cluster import Nodes, node_of
from tests_support.gate import has_addresses
from tests_support.sentinels import Watched
from tests_support.servers import any_binary
from tests_support.waiting import until

from limiter_service.store.client import Client
from limiter_service.store.scripts import load

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not has_addresses(), reason="loopback has one address here"),
]
PATIENCE = 20.0
LONG = 120.0  # until another is named, on however busy a machine
COUNT = load("test", {"test": 'return redis.call("INCR", KEYS[1])'})


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Three masters, and a replica of the first."""
    with Nodes(any_binary(), tmp_path, replicas=1, timeout=1000, gated=True) as running:
        yield running


async def test_callers_of_a_master_that_is_alone_go_to_its_heir(nodes: Nodes) -> None:
    """It refuses, and does not know who has its slots now; the others do."""
    old, heir = nodes.ports[0], nodes.ports[3]
    key = next(key for key in map(str, range(100)) if node_of(nodes.ports, key) == old)
    client = Client(nodes.url, connect_timeout=PATIENCE, command_timeout=PATIENCE)
    await client.run(COUNT, (key,), ())

    async def replaced() -> bool:
        return nodes.order(heir, "ROLE")[0] == b"master" and not nodes.whole(old)

    with nodes.cut_off(old):
        await until(replaced, "nobody takes its place", LONG)
        await client.run(COUNT, (key,), ())
        assert nodes.order(heir, "GET", key) is not None
    await client.aclose()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Three servers and three sentinels."""
    with Watched(any_binary(), tmp_path, gated=True) as running:
        yield running


async def test_callers_of_a_primary_that_sentinels_have_given_up_go_to_its_heir(
    watched: Watched,
) -> None:
    """It answers as ever, in the belief that it is the primary."""
    old = watched.primary
    client = Client(watched.url, connect_timeout=PATIENCE, command_timeout=PATIENCE)
    await client.run(COUNT, ("n",), ())

    async def replaced() -> bool:
        primary = watched.primary
        return primary != old and watched.order(primary, "ROLE")[0] == b"master"

    with watched.cut_off(old):
        await until(replaced, "nobody takes its place", LONG)
        heir = watched.primary
        before = watched.order(heir, "GET", "n")

        async def asked() -> bool:
            await client.run(COUNT, ("n",), ())
            return watched.order(heir, "GET", "n") != before

        await until(asked, "callers stay with the old one", PATIENCE)
        assert watched.order(old, "ROLE")[0] == b"master"
    await client.aclose()
