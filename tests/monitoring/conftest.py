"""A running service that everything in this folder looks at, and what checks it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests_support.service import service_with_store

from client_sdk import BreakerOpen, Lease, LimiterOptions, RateLimited, SyncLimiter
from limiter_wire import Cause, Outcome

CONFIG = """
pools:
  openai:
    limits:
      - {name: daily-cost, meter: cost_usd, limit: 200, per: day, window: calendar}
    models:
      gpt-4o: {rpm: 5000, tpm: 300000, tpd: 60000000, concurrency: 64}
      gpt-4o-mini:
        rpm: 5000
        limits: [{name: strict, meter: requests, limit: 1, per: day, mode: shadow}]
      slot: {limits: [{name: slot, meter: concurrency, limit: 1}]}
      frail: {rpm: 5000}
    tenants:
      checkout: {tpm: 20000}
    prices: {"*": {input: 2.5, output: 10}}
    breaker: {min_calls: 2, consecutive: 0, open: 60s, jitter: 0}
"""
SAID = {
    "x-ratelimit-limit-tokens-day": "50000000",
    "x-ratelimit-remaining-tokens-day": "49000000",
}


@pytest.fixture(scope="session")
def promtool() -> Callable[..., str]:
    """Run promtool; its answer, which must be no complaint."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")

    def run(*arguments: str, told: str | None = None, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [found, *arguments], input=told, capture_output=True, text=True, check=False, cwd=cwd
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that has seen some traffic of every kind."""
    with service_with_store(tmp_path_factory.mktemp("service"), CONFIG) as (_, url):
        _use(url)
        yield url


@pytest.fixture(scope="session")
def scraped(url: str) -> str:
    """What Prometheus reads of it."""
    return httpx.get(f"{url}/metrics", timeout=60).text


def _use(url: str) -> None:
    """Calls that go well, wait, are refused, fail, are throttled, cost, are never settled."""
    with SyncLimiter(url, options=LimiterOptions(timeout=30)) as limiter:
        for tenant in ("checkout", "somebody", "a", "b", "c"):
            with limiter.acquire("openai/gpt-4o", tokens=1200, tenant=tenant) as lease:
                lease.used(input_tokens=800, output_tokens=350)
                lease.observed(SAID, latency=2.0, ttft=0.3)
        with limiter.acquire("openai/gpt-4o", tokens=10) as lease:
            lease.used(input_tokens=20, output_tokens=20)
        for _ in range(3):
            _end(limiter.acquire("openai/gpt-4o-mini", tokens=10), Outcome.SUCCESS)
        _wait(limiter)
        with pytest.raises(RateLimited):
            limiter.acquire("openai/gpt-4o", tokens=20_000, tenant="checkout")
        _end(limiter.acquire("openai/gpt-4o", tokens=10), Outcome.RATE_LIMITED)
        leases = [limiter.acquire("openai/frail", tokens=10) for _ in range(4)]
        for lease in leases:
            _end(lease, Outcome.SERVER_ERROR)
        with pytest.raises(BreakerOpen):
            limiter.acquire("openai/frail", tokens=10)
        limiter.acquire("openai/gpt-4o", tokens=10, ttl=1)
        order = {"limit": 4000, "ttl": 3600, "reason": "test"}
        httpx.put(f"{url}/v1/limits/openai/gpt-4o/rpm/override", json=order).raise_for_status()
        hold = {"mode": "observe", "ttl": 3600, "reason": "test"}
        httpx.put(f"{url}/v1/breakers/openai/slot/override", json=hold).raise_for_status()


def _end(lease: Lease, outcome: Outcome) -> None:
    lease.observed(cause=Cause(refund="none"))
    lease.settle(outcome)


def _wait(limiter: SyncLimiter) -> None:
    """One caller stands in the queue until another has ended."""
    held = limiter.acquire("openai/slot", tokens=1)
    limiter.acquire(
        "openai/slot",
        tokens=1,
        max_wait=30,
        on_wait=lambda _: None if held.settled else held.settle(),
    ).settle()
