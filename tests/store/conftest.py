"""A server of each kind for one test alone, to be mistreated."""

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
import redis
from tests_support.servers import Server, valkey_binary

from limiter_service.store.client import Client

PATIENT = 20.0


@pytest.fixture(params=["valkey", "redis"])
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that is not started yet."""
    binary = {"valkey": valkey_binary(), "redis": shutil.which("redis-server")}[request.param]
    if binary is None:
        pytest.skip(f"no {request.param}-server is installed")
    return Server(binary, tmp_path_factory.mktemp("own"), "--enable-debug-command", "yes")


@pytest.fixture
def running(own: Server) -> Iterator[redis.Redis]:
    """The server, started; a connection for the test's own orders."""
    with own, redis.Redis(unix_socket_path=str(own.socket)) as orders:
        yield orders


@pytest.fixture
async def client(own: Server, running: redis.Redis) -> AsyncIterator[Client]:
    """The store's client, with patience."""
    client = Client(own.url, connect_timeout=PATIENT, command_timeout=PATIENT)
    yield client
    await client.aclose()
