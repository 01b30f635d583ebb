"""Benchmarks are programs: their modules are found here, after everything else."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests_support.servers import Server, valkey_binary

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private server for virtual time, whose clock is a key."""
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
