"""Redis and Valkey in containers, and the service's image over them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import redis
from tests_support import images
from tests_support.containers import ServiceContainer, StoreContainer
from tests_support.servers import BINARIES
from tests_support.waiting import wait_until

from client_sdk import RateLimited, SyncLimiter

pytestmark = pytest.mark.timeout(900)  # the first test may build the image

POOLS = """
pools:
  p:
    models:
      m: {tpm: 1000, concurrency: 4}
"""


@pytest.fixture(params=list(BINARIES))
def store(
    request: pytest.FixtureRequest, engine: docker.DockerClient, tmp_path: Path
) -> Iterator[StoreContainer]:
    """A store whose socket other users may connect to, and whose data is kept."""
    binary = BINARIES[request.param]
    if binary is None:
        pytest.skip(f"no {request.param}-server is installed")
    tmp_path.chmod(0o755)
    image = images.build_store(engine, request.param, binary)
    options = ("--unixsocketperm", "777", "--appendonly", "yes", "--appendfsync", "always")
    with StoreContainer(image, tmp_path, *options) as running:
        yield running


def test_a_store_is_alone_in_its_container(store: StoreContainer) -> None:
    """It is no server of this machine that answers."""
    with redis.Redis(unix_socket_path=str(store.socket)) as client:
        assert client.info()["process_id"] == 1


def test_replicas_of_the_image_share_a_budget(
    image: str, store: StoreContainer, tmp_path: Path
) -> None:
    """What one grants, the other has granted; and a store that is lost comes back with it."""
    (tmp_path / "pools.yaml").write_text(POOLS)
    arguments = ("--config", "/store/pools.yaml", "--redis-url", "unix:///store/s")
    with contextlib.ExitStack() as stack:
        one, other = (
            stack.enter_context(ServiceContainer(*arguments, volumes={str(tmp_path): "/store"}))
            for _ in range(2)
        )
        first, second = (stack.enter_context(SyncLimiter(c.url)) for c in (one, other))
        first.acquire("p/m", tokens=900)
        with pytest.raises(RateLimited):
            second.acquire("p/m", tokens=900)
        store.kill()
        store.restart()
        refused = []

        def answered() -> bool:
            try:
                second.acquire("p/m", tokens=900)
            except RateLimited as refusal:
                refused.append(refusal)
            return bool(refused)

        wait_until(answered, "nobody answers after the store is back", 20)
