"""Adapters meet the packages that they are for: real service, simulated provider, real SDKs.

`scripts/adapters.py` builds the environments. Elsewhere these tests skip.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests_support.servers import Server
from tests_support.service import emptied, service_with_store
from tests_support.simulator import simulator_thread

from limiter_service.provider_sim import SimOptions

HERE = Path(__file__).parent
CONFIG = """
pools:
  p:
    models:
      "*":
        limits:
          - {name: budget, meter: tokens, limit: 1000000, per: 366d}
          - {name: slots, meter: concurrency, limit: 50}
      "quick-*": {limits: [{name: pace, meter: requests, limit: 20, per: second, burst: 1}]}
      "spent-*": {limits: [{name: pace, meter: requests, limit: 1, per: day}]}
"""
FULL = 1_000_000

Left = Callable[..., float]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What other packages warn of is not ours to mend."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """The store and the URL of a service over it."""
    with service_with_store(tmp_path_factory.mktemp("adapters"), CONFIG) as running:
        yield running


@pytest.fixture
def url(service: tuple[Server, str]) -> str:
    """Where the service listens; its store is empty."""
    return emptied(service)


@pytest.fixture(scope="session")
def provider() -> Iterator[str]:
    """The URL of a simulated provider that answers at once and limits nobody."""
    plenty = SimOptions(
        latency=0, tokens_per_second=1e9, rpm=10**9, tpm=10**12, itpm=10**12, otpm=10**12
    )
    with simulator_thread(plenty) as address:
        yield address


@pytest.fixture
def used(url: str) -> Callable[..., tuple[int, int]]:
    """Tokens that were used of a model's budget, and calls that hold a slot."""

    def ask(model: str = "m") -> tuple[int, int]:
        answer = httpx.get(f"{url}/v1/resources/p/{model}")
        levels = {
            each["name"].rpartition(".")[2]: each["remaining"] for each in answer.json()["limits"]
        }
        return FULL - round(levels["budget"]), 50 - round(levels["slots"])

    return ask
