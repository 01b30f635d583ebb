"""Sentinels name another primary while callers take: nobody is restarted, nobody is stuck."""

import asyncio
import shutil
from collections.abc import Iterator

import pytest
from tests_support.sentinels import SERVICE, Watched
from tests_support.servers import valkey_binary
from tests_support.takers import Takers, engine_over, patiently, pools
from tests_support.waiting import until
from typer.testing import CliRunner, Result

from limiter_service.cli import app
from limiter_service.engine.admission import Engine
from limiter_service.engine.refusals import Refusal
from limiter_service.store import acl
from limiter_service.store.address import Login
from limiter_service.store.client import Client
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import load
from limiter_wire import Acquire, ErrorCode, Granted, Settle

pytestmark = pytest.mark.timeout(120)
POOLS = pools("p", more=", queue: {max_wait: 60s}").replace(
    "m: {limits: [", "one: {limits: [{name: slots, meter: concurrency, limit: 1}]}, m: {limits: ["
)


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Three servers and three sentinels."""
    binary = shutil.which("redis-server") or valkey_binary()
    if binary is None:
        pytest.skip("neither Redis nor Valkey is installed")
    with Watched(binary, tmp_path_factory.mktemp("watched")) as running:
        yield running


async def test_a_primary_dies_and_the_next_one_is_found(watched: Watched) -> None:
    """Takers and a waiter go on at the new primary. What it had not heard of is granted again,
    and no more than that.
    """
    client = Client(watched.url, connect_timeout=0.25, command_timeout=0.5)
    engine = engine_over(client, POOLS)
    held = await engine.acquire(Acquire(resource="p/one", tokens=1, ttl=60))
    assert isinstance(held, Granted)
    takers = Takers(engine, "p", 8)
    waiter = asyncio.create_task(
        engine.acquire(Acquire(resource="p/one", tokens=1, max_wait=60, request_id="w"))
    )
    await takers.reach(200)
    acknowledged = takers.total
    watched.kill()
    await takers.lose()
    await takers.each()
    await until(lambda: _settled(engine, held.lease), "the slot does not come back")
    granted = await asyncio.wait_for(waiter, 20)
    assert isinstance(granted, Granted)
    again = await takers.end() - await patiently(takers.spent)
    assert 0 <= again <= acknowledged
    assert watched.primary != watched.ports[0]
    await engine.passes.aclose()
    await client.aclose()


async def _settled(engine: Engine, lease: str) -> bool:
    """Whether a report was taken in, or the new primary never heard of the lease."""
    try:
        await engine.settle(Settle(lease=lease))
    except Refusal as refusal:
        return refusal.problem.code is not ErrorCode.STORE_UNAVAILABLE
    return True


async def test_sentinels_with_users_of_their_own(watched: Watched) -> None:
    """Their login is another than that of the servers; its rights are enough."""
    for port in watched.sentinel_ports:
        rules = acl.sentinel_rules()
        watched.order(port, "ACL", "SETUSER", "asks", "reset", "on", ">s3", *rules)
        watched.order(port, "ACL", "SETUSER", "default", "off")
    url = watched.url
    call = (load("snapshot", {"snapshot": "return ARGV[1]"}), ("sg:{p}:x",), ("hello",))
    for sentinels, answer in ((Login("asks", "s3"), b"hello"), (Login("asks", "other"), None)):
        client = Client(url, connect_timeout=5.0, command_timeout=5.0, sentinels=sentinels)
        if answer is not None:
            assert await client.run(*call) == answer
        else:
            with pytest.raises(StoreUnavailable, match=f"No master found for '{SERVICE}'"):
                await client.run(*call)
        await client.aclose()
    for password, code, told in (
        ("s3", 0, "OK       sentinels      3 of 3 in the URL answer"),
        ("other", 3, "cure: user and password of the URL, percent-encoded; those of sentinels"),
    ):
        done = await asyncio.to_thread(_looked, url, password)
        assert done.exit_code == code, done.output
        assert told in done.output


def _looked(url: str, password: str) -> Result:
    """`sluicegate doctor`, with a login at the sentinels."""
    env = {
        "SLUICEGATE_SENTINEL_USERNAME": "asks",
        "SLUICEGATE_SENTINEL_PASSWORD": password,
        "SLUICEGATE_CONNECT_TIMEOUT": "20",
        "SLUICEGATE_COMMAND_TIMEOUT": "20",
    }
    return CliRunner().invoke(app, ["doctor", "--no-service", "--redis-url", url], env=env)
