"""A store for the run, and services over it whose acquires can wait."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from tests_support.patient import ServiceThread
from tests_support.servers import Server, any_binary

CONFIG = """
pools:
  p:
    models:
      m:
        limits:
          - {name: budget, meter: tokens, limit: 1000, per: 366d}
          - {name: slots, meter: concurrency, limit: 50}
      one: {limits: [{name: slot, meter: concurrency, limit: 1}]}
      free: {}
      plain: {limits: [{name: budget, meter: tokens, limit: 1000000, per: 366d}]}
      "w-*": {limits: [{name: slot, meter: concurrency, limit: 1}]}
      "e-*":
        limits:
          - {name: slot, meter: concurrency, limit: 1}
          - {meter: tokens, limit: 1000000, per: 366d, reserve: input + expected_output}
"""

Start = Callable[..., ServiceThread]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the run."""
    with Server(any_binary(), tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def start(store: Server, tmp_path: Path) -> Iterator[Start]:
    """Start a service over the store, which is empty when the test begins."""
    config = tmp_path / "pools.yaml"
    config.write_text(CONFIG)
    with redis.Redis(unix_socket_path=str(store.socket)) as connection:
        connection.flushall()
    with contextlib.ExitStack() as stack:

        def started(port: int = 0, **settings: object) -> ServiceThread:
            return stack.enter_context(ServiceThread(store.url, config, port, **settings))

        yield started


@pytest.fixture
def service(start: Start) -> ServiceThread:
    """A service."""
    return start()
