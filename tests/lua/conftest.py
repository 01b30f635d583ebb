"""A server for tests that need one kind only."""

from collections.abc import Iterator

import pytest
import redis
from tests_support.servers import Server, valkey_binary


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Valkey of the service extra."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    with Server(binary, tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def valkey_db(valkey: Server) -> Iterator[redis.Redis]:
    """An empty database of it."""
    client = redis.Redis(unix_socket_path=str(valkey.socket))
    client.flushall()
    yield client
    client.close()
