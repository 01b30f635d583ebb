"""Real servers for every test: private sockets, own processes, no port, no mock."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import structlog
from tests_support.servers import BINARIES, Server

from limiter_service.store.keys import FleetKeys

# The same stores in containers: `STORES=containers pytest tests`, with an engine.
IN_CONTAINERS = os.environ.get("STORES") == "containers"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over stores in containers run the tests that take such a store, and no others."""
    if not IN_CONTAINERS:
        return
    takes = [item for item in items if "server" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(takes)])
    items[:] = takes


@pytest.fixture(autouse=True)
def logs_as_installed() -> Iterator[None]:
    """A command that ran inside a test leaves no log that writes to the test's closed stderr."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", params=list(BINARIES))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of each kind that is installed, for the whole run."""
    binary = BINARIES[request.param]
    if binary is None:
        pytest.skip(f"no {request.param}-server is installed")
    home = tmp_path_factory.mktemp(request.param)
    with (
        _contained(request.param, binary, home) if IN_CONTAINERS else Server(binary, home) as store
    ):
        yield store


def _contained(kind: str, binary: str, home: Path) -> Server:
    """The binary in an image of its own."""
    from tests_support import containers, images  # noqa: PLC0415  # needs docker's client

    engine = containers.engine()
    if isinstance(engine, str):
        pytest.skip(engine)
    return containers.StoreContainer(images.build_store(engine, kind, binary), home)


@pytest.fixture
def db(server: Server) -> Iterator[redis.Redis]:
    """An empty database. Afterwards no key may be left that never expires."""
    client = redis.Redis(unix_socket_path=str(server.socket))
    client.flushall()
    yield client
    meant = {FleetKeys().keyring().encode()}  # operators store keys on purpose
    immortal = [key for key in client.scan_iter() if client.ttl(key) == -1 and key not in meant]
    client.close()
    assert immortal == [], "keys without a time to live"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Valkey of the service extra, for tests that need one kind only: its clock may be set."""
    binary = BINARIES["valkey"]
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


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    """Write a pools file and return its path."""

    def write(text: str, name: str = "pools.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
