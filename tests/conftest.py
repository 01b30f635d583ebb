"""Real servers for every test: private sockets, own processes, no port, no mock."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import structlog
from tests_support.leavings import immortal_in
from tests_support.lending import IN_CONTAINERS, Shared, store_of
from tests_support.servers import BINARIES, Server, some_kind

TAKING_A_STORE = {"server", "own_store", "crowded"}
"""What tests ask for that can be run over a store in a container."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over stores in containers run the tests that take such a store, and no others."""
    if not IN_CONTAINERS:
        return
    takes = [item for item in items if TAKING_A_STORE & set(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(takes)])
    items[:] = takes


@pytest.fixture(autouse=True)
def logs_as_installed() -> Iterator[None]:
    """A command that ran inside a test leaves no log that writes to the test's closed stderr."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Shared]]:
    """Servers that tests share, one of each kind: started when the first one asks for it.
    `server` and `valkey` lend them, each to one test at a time.
    """
    with contextlib.ExitStack() as stack:

        @functools.cache
        def of(kind: str) -> Shared:
            store = stack.enter_context(store_of(kind, tmp_path_factory.mktemp(kind)))
            return stack.enter_context(Shared(store))

        yield of


@pytest.fixture(params=list(BINARIES))
def server(
    request: pytest.FixtureRequest, shared_stores: Callable[[str], Shared]
) -> Iterator[Server]:
    """A server of each kind that is installed: empty, and as it was configured. For one test;
    what serves more of them has a store of its own (`own_store`).
    """
    with shared_stores(request.param).lent() as store:
        yield store


@pytest.fixture
def valkey(shared_stores: Callable[[str], Shared]) -> Iterator[Server]:
    """The Valkey of the service extra, for tests that need one kind only: its clock may be set."""
    with shared_stores("valkey").lent() as store:
        yield store


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A store for what lives longer than a test: nobody else empties, stops or fills it."""
    with store_of(some_kind(), tmp_path_factory.mktemp("own")) as store:
        yield store


@pytest.fixture
def db(server: Server) -> Iterator[redis.Redis]:
    """An empty database. Afterwards no key may be left that never expires."""
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        yield client
        assert immortal_in(client) == [], "keys without a time to live"


@pytest.fixture
def valkey_db(valkey: Server) -> Iterator[redis.Redis]:
    """An empty database of it."""
    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        yield client


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    """Write a pools file and return its path."""

    def write(text: str, name: str = "pools.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
