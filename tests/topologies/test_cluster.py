"""A cluster that changes under load: slots move, a master dies."""

from collections.abc import Iterator

import pytest
from tests_support.cluster import Nodes, node_of
from tests_support.servers import valkey_binary
from tests_support.takers import Takers, engine_over, patiently, pools
from typer.testing import CliRunner

from limiter_service.cli import app
from limiter_service.engine.refusals import Refusal
from limiter_service.store import acl
from limiter_service.store.client import Client
from limiter_service.store.keys import Keys
from limiter_service.store.scripts import load
from limiter_wire import Acquire

pytestmark = pytest.mark.timeout(120)
PATIENTLY = {"SLUICEGATE_CONNECT_TIMEOUT": "20", "SLUICEGATE_COMMAND_TIMEOUT": "20"}
READ = load("snapshot", {"snapshot": 'return redis.call("GET", KEYS[1])'})


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three masters, and a replica of the first."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    home = tmp_path_factory.mktemp("nodes")
    with Nodes(binary, home, replicas=1, timeout=1000) as running:
        yield running


def pool_on(nodes: Nodes, master: int, prefix: str) -> str:
    """A pool whose keys are on a master."""
    names = (f"{prefix}{i}" for i in range(100))
    return next(
        name for name in names if node_of(nodes.ports, f"{{{name}}}") == nodes.ports[master]
    )


async def test_a_slot_moves_and_no_caller_notices(nodes: Nodes) -> None:
    """ASK, TRYAGAIN and MOVED are met on the way; every call is answered, and the books balance."""
    pool = pool_on(nodes, 1, "moving")
    client = Client(nodes.url, connect_timeout=20.0, command_timeout=20.0)
    takers = Takers(engine_over(client, pools(pool)), pool, 8)
    await takers.reach(100)

    async def found_by_asking() -> None:
        key = Keys(pool).model_scope("m")
        assert await client.run(READ, (key,), ()) is not None

    await nodes.move(f"{{{pool}}}", nodes.ports[1], nodes.ports[2], found_by_asking)
    await takers.reach(100)
    granted = await takers.end()
    assert takers.lost == 0
    assert await takers.spent() == granted
    await client.aclose()


def test_the_doctor_counts_the_slots(nodes: Nodes) -> None:
    """And runs a script where its keys are, whichever node that is."""
    words = ["doctor", "--no-service", "--redis-url", nodes.url]
    for prefix in ("a:", "b:", "c:", "d:"):
        done = CliRunner().invoke(app, [*words, "--key-prefix", prefix], env=PATIENTLY)
        assert done.exit_code == 0, done.output
        assert "state ok, 16,384 of 16,384 slots are served" in done.output
        assert "OK       scripts        run" in done.output


async def test_the_url_of_a_server_does_not_do_for_a_cluster(nodes: Nodes) -> None:
    """The answer says which does."""
    pool = pool_on(nodes, 1, "elsewhere")
    url = f"redis://127.0.0.1:{nodes.ports[0]}"
    client = Client(url, connect_timeout=20.0, command_timeout=20.0)
    with pytest.raises(Refusal) as refused:
        await engine_over(client, pools(pool)).acquire(Acquire(resource=f"{pool}/m", tokens=1))
    assert "give its URL as redis+cluster://" in refused.value.problem.detail
    await client.aclose()


async def test_the_user_of_the_rules_is_enough_on_a_cluster(nodes: Nodes) -> None:
    """It finds the nodes, is redirected, hears hints; nothing that it does is denied."""
    pool = pool_on(nodes, 2, "user")
    for port in nodes.ports:
        rules = acl.rules(cluster=True)
        nodes.order(port, "ACL", "SETUSER", "app", "reset", "on", ">pw", *rules)
        nodes.order(port, "ACL", "LOG", "RESET")
    url = nodes.url.replace("://", "://app:pw@")
    client = Client(url, connect_timeout=20.0, command_timeout=20.0)
    takers = Takers(engine_over(client, pools(pool)), pool, 4)
    await takers.reach(20)
    await nodes.move(f"{{{pool}}}", nodes.ports[2], nodes.ports[1])
    await takers.reach(20)
    async with client.subscription() as subscription:
        await subscription.subscribe(f"sg:{{{pool}}}:q:hints")
        assert await subscription.message(0.05) is None
    await client.ping()
    await client.info("memory")
    assert await takers.spent() <= await takers.end()
    await client.aclose()
    for port in nodes.ports:
        assert nodes.order(port, "ACL", "LOG") == []


async def test_a_master_dies_and_its_pools_come_back(nodes: Nodes) -> None:
    """Its pools are served by its replica, without a restart, no caller stuck; those of other
    masters do not notice. What the replica had not heard of is granted again, and no more.
    """
    hurt, well = pool_on(nodes, 0, "hurt"), pool_on(nodes, 1, "well")
    client = Client(nodes.url, connect_timeout=0.25, command_timeout=0.5)
    engine = engine_over(client, pools(hurt, well))
    mine, others = Takers(engine, hurt, 8), Takers(engine, well, 2)
    await mine.reach(200)
    acknowledged = mine.total
    nodes.servers[nodes.ports[0]].kill()
    await mine.lose()
    await mine.each()
    granted, fine = await mine.end(), await others.end()
    begin, end = mine.gap()
    assert any(begin < grant < end for grant in others.grants)
    again = granted - await patiently(mine.spent)
    assert 0 <= again <= acknowledged
    assert await patiently(others.spent) == fine
    await client.aclose()
    assert nodes.order(nodes.ports[3], "ROLE")[0] == b"master"
    nodes.revive(nodes.ports[0])
