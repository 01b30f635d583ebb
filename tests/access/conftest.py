"""Two replicas over one store, in processes of their own, that were given an admin key."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support.keys import ADMIN, Fleet
from tests_support.servers import Server, valkey_binary
from tests_support.service import ServiceProcess

CONFIG = """
pools:
  p:
    models:
      m: {rpm: 1000000}
      one: {concurrency: 1}
    tenants: {own: {rpm: 1000000}, other: {rpm: 1000000}}
  q: {models: {m: {rpm: 1000000}}}
"""


@pytest.fixture(scope="session")
def fleet_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the replicas log to."""
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, fleet_log: Path) -> Iterator[Fleet]:
    """Replicas that believe this host what it forwards: each request has an address of its own."""
    home = tmp_path_factory.mktemp("fleet")
    (home / "pools.yaml").write_text(CONFIG)
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN, "SLUICEGATE_TRUSTED_PROXIES": "127.0.0.1"}
    with Server(binary, home) as store, fleet_log.open("w") as log:
        arguments = ("--config", str(home / "pools.yaml"), "--redis-url", store.url)
        with (
            ServiceProcess(*arguments, env=env, stderr=log) as one,
            ServiceProcess(*arguments, env=env, stderr=log) as two,
        ):
            yield Fleet((one.url, two.url), store.url)
