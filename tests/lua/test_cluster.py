"""The same scripts on a cluster: every key of a pool on one node, all of them declared."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from random import Random

import group_histories
import pytest
import redis
from histories import drawn, histories, run
from hypothesis import HealthCheck, Phase, given, settings
from tests_support.cluster import cluster, node_of
from tests_support.scripts import CLOCK
from tests_support.servers import valkey_binary
from tests_support.waiting import until

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.hints import Hints
from limiter_wire import Acquire, Granted, Settle, Usage

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """Three masters."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    with cluster(binary, tmp_path_factory.mktemp("cluster")) as running:
        yield running


def test_histories_on_a_cluster_end_as_the_reference_says(ports: list[int]) -> None:
    """A node of a cluster refuses keys of other slots, so none is left undeclared."""
    with redis.Redis(port=node_of(ports, CLOCK)) as client:
        one = run(client)

        @settings(
            max_examples=60,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(histories)
        def check(history: tuple[int, list]) -> None:  # type: ignore[type-arg]  # of steps
            one(history)

        check()


def test_groups_on_a_cluster_end_as_the_reference_says(ports: list[int]) -> None:
    """The leases of a group are on one node, and all of them are declared."""
    with redis.Redis(port=node_of(ports, CLOCK)) as client:
        one = group_histories.run(client)
        assert sum(one(drawn(Random(seed))) for seed in range(15)) > 0


def client_of(ports: list[int]) -> Client:
    """A connection to the cluster."""
    urls = ",".join(f"127.0.0.1:{port}" for port in ports)
    return Client(f"redis+cluster://{urls}", connect_timeout=20.0, command_timeout=20.0)


def engine_over(client: Client, text: str) -> Engine:
    """A replica with a pools file."""
    ahead = itertools.count(1_700_000_000_000_000)
    return Engine(
        Commands(client),
        Policies(parse(text, ".yaml"), "sg:"),
        lambda: next(ahead),
        "sg:",
        hints=Hints(client),
        observe=lambda _: None,
    )


@pytest.mark.parametrize(
    "limit",
    ["{meter: tokens, limit: 100, per: day, window: calendar}",
     "{meter: tokens, limit: 1, per: 366d, burst: 100}"],
    ids=["alone", "together"],
)  # fmt: skip
async def test_pools_on_every_node_are_served_through_one_url(ports: list[int], limit: str) -> None:
    """The service finds each pool's node, and each pool keeps its own exact budget, whether its
    calls are made alone or as one.
    """
    prefix = "b" if "burst" in limit else "a"  # their states are of different limits
    pools = [f"{prefix}{i}" for i in range(12)]
    assert len({node_of(ports, f"{{{pool}}}") for pool in pools}) == 3
    text = "pools:\n" + "".join(f"  {p}: {{models: {{m: {{limits: [{limit}]}}}}}}\n" for p in pools)
    client = client_of(ports)
    engine = engine_over(client, text)

    async def take(pool: str) -> int:
        try:
            granted = await engine.acquire(Acquire(resource=f"{pool}/m", tokens=9))
        except Refusal:
            return 0
        await engine.settle(Settle(lease=granted.lease, usage=Usage(input_tokens=8)))
        return 8

    spent = await asyncio.gather(*(take(pool) for pool in pools * 20))
    views = await asyncio.gather(*(engine.view(f"{pool}/m", "default") for pool in pools))
    await client.aclose()
    for i, view in enumerate(views):
        assert round(view.limits[0].remaining) == 100 - sum(spent[i :: len(pools)])
        assert 0 <= view.limits[0].remaining < 100


async def test_callers_at_one_replica_are_told_by_another(ports: list[int]) -> None:
    """On every node a queue is served in order, by messages on the channel of its slot.

    Without messages each caller would wait for a beat, and all of them beyond the deadline.
    """
    pools = {node_of(ports, f"{{line{i}}}"): f"line{i}" for i in range(12)}
    assert len(pools) == 3
    limit = "{meter: concurrency, limit: 1}"
    text = "pools:\n" + "".join(
        f"  {pool}: {{models: {{m: {{limits: [{limit}]}}}}}}\n" for pool in pools.values()
    )
    async with replica(ports, text) as one, replica(ports, text) as two:
        order = await _handed_on(one, two, pools)
    for numbers in order.values():
        assert numbers == list(range(1, 21))


@contextlib.asynccontextmanager
async def replica(ports: list[int], text: str) -> AsyncIterator[Engine]:
    """An engine with a connection of its own."""
    client = client_of(ports)
    engine = engine_over(client, text)
    try:
        yield engine
    finally:
        await engine.passes.aclose()
        await client.aclose()


async def _handed_on(one: Engine, two: Engine, pools: dict[int, str]) -> dict[str, list[int]]:
    order: dict[str, list[int]] = {pool: [] for pool in pools.values()}

    async def depth(pool: str) -> int:
        return (await one.lines.view(pool, 0, 0)).depth

    async def wait_and_hand_on(pool: str, number: int) -> None:
        granted = await two.acquire(Acquire(resource=f"{pool}/m", tokens=1, max_wait=60))
        assert isinstance(granted, Granted)
        order[pool].append(number)
        await one.settle(Settle(lease=granted.lease))

    async def stands(pool: str, number: int) -> bool:
        return await depth(pool) == number

    async def listens(port: int, pool: str) -> bool:
        with redis.Redis(port=port) as node:
            channels = node.execute_command("PUBSUB", "SHARDCHANNELS")
        return f"sg:{{{pool}}}:q:hints".encode() in channels

    leases, waiting = [], []
    async with asyncio.TaskGroup() as callers:
        for port, pool in pools.items():
            held = await one.acquire(Acquire(resource=f"{pool}/m", tokens=1))
            assert isinstance(held, Granted)
            leases.append(held.lease)
            for number in range(1, 21):
                waiting.append(callers.create_task(wait_and_hand_on(pool, number)))
                await until(lambda p=pool, n=number: stands(p, n), "it does not wait")
            await until(lambda p=port, c=pool: listens(p, c), "nobody listens")
        async with asyncio.timeout(15):
            await asyncio.gather(*(one.settle(Settle(lease=lease)) for lease in leases))
            await asyncio.gather(*waiting)
    return order
