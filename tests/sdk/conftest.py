"""A service that runs for the whole session, with an empty store for every test."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from tests_support.provider import ProviderThread
from tests_support.servers import Server
from tests_support.service import emptied, service_with_store
from tests_support.simulator import simulator_thread

from limiter_service.provider_sim import SimOptions

CONFIG = """
pools:
  p:
    cost_in_requests: true
    models:
      m:
        limits:
          - {name: budget, meter: tokens, limit: 1000, per: 366d}
          - {name: calls, meter: requests, limit: 1000, per: 366d}
          - {name: slots, meter: concurrency, limit: 50}
      quick: {limits: [{meter: requests, limit: 3, per: second, burst: 1}]}
      "slot-*": {limits: [{name: slot, meter: concurrency, limit: 1}]}
      told: {tpd: 60000}
      dear: {limits: [{name: spend, meter: cost_usd, limit: 10, per: 366d}]}
    tenants:
      team: {limits: [{name: own, meter: tokens, limit: 500, per: 366d}]}
  frail:
    models: {m: {}, n: {}, o: {}}
    breaker: {min_calls: 2, consecutive: 0, open: 300ms, jitter: 0, successes: 1, retry_floor: 1}
  frugal:
    models: {m: {}}
    breaker: {retry_ratio: 0, retry_floor: 0}
  unforgiving:
    models: {m: {}}
    breaker: {min_calls: 1, consecutive: 0, open: 60s, max_open: 60s, jitter: 0}
  lends:
    blocks: {share: 0.1, hold: 600s}
    breaker: {min_calls: 1, failure_rate: 0.01, consecutive: 0, open: 60s, jitter: 0}
    queue: {max_wait: 3000s}
    models:
      m:
        limits:
          - {name: calls, meter: requests, limit: 1000, per: 366d}
          - {name: budget, meter: tokens, limit: 100000, per: 366d}
      n: {limits: [{name: calls, meter: requests, limit: 1000, per: 366d}]}
      counted: {limits: [{name: calls, meter: requests, limit: 1000, per: 366d}]}
      tight: {limits: [{name: calls, meter: requests, limit: 20, per: 3000s, burst: 1}]}
  briefly:
    blocks: {share: 0.1, hold: 300ms}
    models: {m: {limits: [{name: calls, meter: requests, limit: 1000, per: 366d}]}}
  nobody-waits:
    models: {m: {limits: [{meter: concurrency, limit: 1}]}}
    queue: {max_waiters: 0}
"""


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """The store and the URL of a service over it."""
    with service_with_store(tmp_path_factory.mktemp("service"), CONFIG) as running:
        yield running


@pytest.fixture
def url(service: tuple[Server, str]) -> str:
    """Where the service listens; its store is empty."""
    return emptied(service)


@pytest.fixture
def left(url: str) -> Callable[..., float]:
    """What remains of a limit, as the service says."""

    def ask(limit: str = "m.budget", tenant: str = "default", pool: str = "p") -> float:
        model = limit.partition(".")[0]
        resource = "m" if model == tenant else model  # a tenant's own limit meets every model
        answer = httpx.get(f"{url}/v1/resources/{pool}/{resource}", params={"tenant": tenant})
        levels = {each["name"]: each["remaining"] for each in answer.json()["limits"]}
        remaining: float = levels[limit]
        return remaining

    return ask


@pytest.fixture
def held(url: str) -> Callable[[str], float]:
    """How many calls are held in blocks of a pool, as the metrics say."""

    def ask(pool: str) -> float:
        name = f'sluicegate_blocks_held{{meter="requests",pool="{pool}"}} '
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(name)).removeprefix(name))

    return ask


@pytest.fixture(scope="session")
def simulated() -> Iterator[ProviderThread]:
    """A provider that runs for the whole session."""
    with ProviderThread() as provider:
        yield provider


@pytest.fixture
def simulator(simulated: ProviderThread) -> ProviderThread:
    """The provider, without faults and with its counts at zero."""
    simulated.reset()
    return simulated


@pytest.fixture(scope="session")
def provider() -> Iterator[str]:
    """The URL of a simulated provider that answers at once and limits nobody."""
    plenty = SimOptions(
        latency=0, tokens_per_second=1e9, rpm=10**9, tpm=10**12, itpm=10**12, otpm=10**12
    )
    with simulator_thread(plenty) as address:
        yield address
