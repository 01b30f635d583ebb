"""A fleet of real processes: replicas over one store, a provider, and a crowd of workers."""

import contextlib
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx
import pytest
from tests_support.crowd import Nursery
from tests_support.lending import store_of
from tests_support.races import STORES, Fleet, Provider, pools_file
from tests_support.servers import Server
from tests_support.service import ServiceProcess


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where workers come from."""
    with Nursery() as running:
        yield running


@pytest.fixture(scope="session")
def provider_url() -> Iterator[str]:
    """A simulated provider in a process of its own, without limits that anybody meets."""
    command = [sys.executable, "-m", "limiter_service", "provider-sim", "--port", "0"]
    command += ["--rpm", "100000000", "--tpm", "1000000000", "--latency", "0.001"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = (re.search(r"listening on (\S+)", line) for line in process.stdout)
        url = next(match[1] for match in found if match)
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield url
        process.terminate()
        process.wait()
        drain.join()


@pytest.fixture(scope="session", params=STORES)
def crowded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The store of the replicas, which nobody empties while they run."""
    with store_of(request.param, tmp_path_factory.mktemp("crowded")) as running:
        yield running


@pytest.fixture(scope="session")
def replica_urls(crowded: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two replicas over one store."""
    path = tmp_path_factory.mktemp("races") / "pools.json"
    path.write_bytes(pools_file())
    arguments = ("--config", str(path), "--redis-url", crowded.url, "--log-level", "error")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ServiceProcess(*arguments)).url for _ in range(2)]


Recruit = Callable[..., Awaitable[Fleet]]

_numbers = itertools.count(1)


@pytest.fixture
async def recruit(
    nursery: Nursery, provider_url: str, replica_urls: list[str]
) -> AsyncIterator[Recruit]:
    """Workers for a circuit of the test's own in one of the pools: a number, or their names."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
            for url in (*replica_urls, provider_url)
        ]
        provider = Provider(clients[-1])

        async def start(
            pool: str, workers: int | list[str], services: list[str] | None = None
        ) -> Fleet:
            model = f"m{next(_numbers)}"
            fleet = Fleet(f"{pool}/{model}", clients[:-1], provider)
            names = [f"w{n}" for n in range(workers)] if isinstance(workers, int) else workers
            crowd = nursery.crowd(names, services or replica_urls, provider_url)
            fleet.members = await stack.enter_async_context(crowd)
            return fleet

        yield start
        await provider.well()
