"""`durability: replicated`: a grant counts when a replica of the store has it."""

import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests_support.calls import ask, left, refused
from tests_support.servers import Server, valkey_binary
from tests_support.service import http_client, in_process
from tests_support.waiting import until, wait_until

POOLS = """
pools:
  p:
    durability: replicated
    models: {m: {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}]}}
  quick:
    models: {m: {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}]}}
"""


class Pair:
    """A primary and its replica, which can be stopped."""

    def __init__(self, primary: Server, replica: Server) -> None:
        self.primary, self._replica = primary, replica

    def stop(self) -> None:
        """The replica says nothing any more."""
        os.kill(self._replica.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """It takes in what it has missed."""
        os.kill(self._replica.pid, signal.SIGCONT)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A primary that its replica follows."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    port = _free_port()
    listening = ("--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    following = ("--replicaof", "127.0.0.1", str(port))
    with (
        Server(binary, tmp_path_factory.mktemp("primary"), *listening) as primary,
        Server(binary, tmp_path_factory.mktemp("replica"), *following) as replica,
        redis.Redis(unix_socket_path=str(replica.socket)) as connection,
    ):

        def linked() -> bool:
            return connection.info("replication")["master_link_status"] == "up"

        wait_until(linked, "the replica does not follow")
        found = Pair(primary, replica)
        yield found
        found.go_on()


@pytest.fixture
async def client(
    pair: Pair, write_config: Callable[[str], Path]
) -> AsyncIterator[httpx.AsyncClient]:
    """The service over an empty primary."""
    with redis.Redis(unix_socket_path=str(pair.primary.socket)) as connection:
        connection.flushall()
    pair.go_on()
    async with replica_of_the_service(pair, write_config) as found:
        yield found


@contextlib.asynccontextmanager
async def replica_of_the_service(
    pair: Pair, write_config: Callable[[str], Path]
) -> AsyncIterator[httpx.AsyncClient]:
    """Another one, with connections of its own."""
    async with in_process(pair.primary.url, write_config(POOLS)) as app, http_client(app) as found:
        yield found


async def at_last(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The grant, once the replica has taken it in: a busy machine may keep it waiting for longer
    than a call does.
    """
    found: list[dict[str, Any]] = []

    async def granted() -> bool:
        answer = await client.post("/v1/acquire", json=body)
        if answer.status_code == 200:
            found.append(answer.json())
        else:
            assert answer.json()["code"] == "store_unavailable"
        return bool(found)

    await until(granted, "no replica acknowledges it", 60)
    return found[0]


async def test_a_grant_that_no_replica_has_is_refused_and_comes_when_one_has_it(
    client: httpx.AsyncClient, pair: Pair, write_config: Callable[[str], Path]
):
    """It is charged once, and nobody is told of it before, at whatever replica they ask."""
    await at_last(client, resource="p/m", tokens=1, request_id="first")
    pair.stop()
    body = {"resource": "p/m", "tokens": 100, "request_id": "r"}
    told = await refused(client, "acquire", 503, "store_unavailable", **body)
    assert "no replica of the store has acknowledged it" in told["detail"]
    assert told["retry_after"] == 1.0
    async with replica_of_the_service(pair, write_config) as other:
        await refused(other, "acquire", 503, "store_unavailable", **body)
    pair.go_on()
    assert not (await at_last(client, **body))["degraded"]
    assert await left(client) == 899


async def test_a_refusal_waits_for_nobody(client: httpx.AsyncClient, pair: Pair):
    """What changes nothing needs no replica; neither do pools with `durability: fast`."""
    pair.stop()
    await refused(client, "acquire", 422, "never_fits", resource="p/m", tokens=1001)
    answer = await ask(client, "acquire", resource="quick/m", tokens=1)
    assert not answer["degraded"]
    pair.go_on()


async def test_who_waits_is_granted_when_a_replica_has_it(client: httpx.AsyncClient, pair: Pair):
    """The queue grants by the same rule."""
    body = {"resource": "p/m", "tokens": 10, "max_wait": 5, "request_id": "w"}
    pair.stop()
    await refused(client, "acquire", 503, "store_unavailable", **body)
    pair.go_on()
    assert not (await at_last(client, **body))["degraded"]
