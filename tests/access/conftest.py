"""Two replicas over one store, in processes of their own, that were given an admin key."""

from collections.abc import Iterator

import pytest
from tests_support.keys import ADMIN, Fleet
from tests_support.servers import Server
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


@pytest.fixture(scope="module")
def fleet(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Replicas that believe this host what it forwards: each request has an address of its own."""
    home = tmp_path_factory.mktemp("fleet")
    (home / "pools.yaml").write_text(CONFIG)
    arguments = ("--config", str(home / "pools.yaml"), "--redis-url", valkey.url)
    env = {"SLUICEGATE_ADMIN_KEY": ADMIN, "SLUICEGATE_TRUSTED_PROXIES": "127.0.0.1"}
    with ServiceProcess(*arguments, env=env) as one, ServiceProcess(*arguments, env=env) as two:
        yield Fleet((one.url, two.url), valkey.url)
