"""What `limiter.transport` costs in the official SDKs: CPU per streamed event, with and without.

    python scripts/adapters.py build
    .venv-adapters/current/bin/python benchmarks/transport_tap.py [--rounds 9] [--events 1000]

Real SDKs, real HTTP on the loopback address, the simulator and the service in processes of
their own. Each round streams a long and a short answer, plain and limited: their difference is
what events cost, and what the short ones differ by is what a call costs, with its acquire and
its settle. Machines are noisy: read the share (`more`), the median of those within a round.
The bar is 5 %.
"""

import argparse
import asyncio
import gc
import importlib.metadata
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai

from client_sdk import Limiter, SyncLimiter

CONFIG = """
pools:
  p:
    models: {"*": {limits: [{meter: tokens, limit: 1000000000, per: minute}]}}
"""
ASK = [{"role": "user", "content": "How high is the water?"}]
US = 1e6

Run = Callable[[], Awaitable[int]]


@contextmanager
def child(*arguments: str) -> Iterator[str]:
    """A server of ours; its URL."""
    command = [sys.executable, "-m", "limiter_service", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "http://" in line:
                    found = line[line.index("http://") :].split()[0]
                    break
            else:
                raise SystemExit(f"{arguments[0]} did not start")
            yield found.rstrip("/.,")
        finally:
            process.terminate()


def headers(events: int) -> dict[str, str]:
    """How much the simulator says."""
    return {"x-sim-output-tokens": str(events), "x-sim-input-tokens": "20"}


def openai_async(http: Any, sim: str, events: int) -> Run:
    """Chunks of a chat."""
    sdk = openai.AsyncOpenAI(base_url=f"{sim}/openai/v1", api_key="k", http_client=http)

    async def run() -> int:
        stream = await sdk.chat.completions.create(
            model="m", messages=ASK, stream=True, extra_headers=headers(events)
        )
        return sum([1 async for _ in stream])

    return run


def openai_sync(http: Any, sim: str, events: int) -> Run:
    """The same in a thread."""
    sdk = openai.OpenAI(base_url=f"{sim}/openai/v1", api_key="k", http_client=http)

    async def run() -> int:
        stream = sdk.chat.completions.create(
            model="m", messages=ASK, stream=True, extra_headers=headers(events)
        )
        return sum(1 for _ in stream)

    return run


def anthropic_async(http: Any, sim: str, events: int) -> Run:
    """Events of a message."""
    sdk = anthropic.AsyncAnthropic(base_url=f"{sim}/anthropic", api_key="k", http_client=http)

    async def run() -> int:
        stream = await sdk.messages.create(
            model="m", messages=ASK, max_tokens=events, stream=True, extra_headers=headers(events)
        )
        return sum([1 async for _ in stream])

    return run


def anthropic_sync(http: Any, sim: str, events: int) -> Run:
    """The same in a thread."""
    sdk = anthropic.Anthropic(base_url=f"{sim}/anthropic", api_key="k", http_client=http)

    async def run() -> int:
        stream = sdk.messages.create(
            model="m", messages=ASK, max_tokens=events, stream=True, extra_headers=headers(events)
        )
        return sum(1 for _ in stream)

    return run


async def measured(run: Run) -> tuple[float, int]:
    """Seconds of CPU, and events."""
    gc.collect()
    before = time.process_time()
    count = await run()
    return time.process_time() - before, count


async def compare(name: str, make: Callable[[int], tuple[Run, Run]], rounds: int, n: int) -> None:
    """Print one row: a long stream and a short one, plain and limited."""
    long, short = make(n), make(1)
    for run in (*long, *short):
        await measured(run)
    rows = []
    for number in range(rounds):
        runs = [*long, *short]
        found = {run: await measured(run) for run in (runs if number % 2 else runs[::-1])}
        cpu, counts = [found[run][0] for run in runs], [found[run][1] for run in runs]
        between = counts[0] - counts[2]
        rows.append(((cpu[0] - cpu[2]) / between, (cpu[1] - cpu[3]) / between, cpu[3] - cpu[2]))
    plain, limited, call = (statistics.median(row[k] for row in rows) for k in range(3))
    share = statistics.median(row[1] / row[0] - 1 for row in rows)
    print(
        f"{name:20}{plain * US:10.1f}{limited * US:10.1f}{share:9.1%}{call * 1e3:12.2f}", flush=True
    )


async def table(sim: str, service: str, options: argparse.Namespace) -> None:
    """All SDKs, both ways."""
    print(f"{'us of CPU per event':20}{'plain':>10}{'limited':>10}{'more':>9}{'ms per call':>12}")
    async with Limiter(service) as limiter:
        for name, make, sdk in (
            ("openai async", openai_async, openai),
            ("anthropic async", anthropic_async, anthropic),
        ):
            plain = sdk.DefaultAsyncHttpxClient()
            http = limiter.transport(sdk.DefaultAsyncHttpxClient(), pool="p")
            row = pair(make, plain, http, sim)
            await compare(name, row, options.rounds, options.events)
    with SyncLimiter(service) as blocking:
        for name, make, sdk in (
            ("openai sync", openai_sync, openai),
            ("anthropic sync", anthropic_sync, anthropic),
        ):
            plain = sdk.DefaultHttpxClient()
            http = blocking.transport(sdk.DefaultHttpxClient(), pool="p")
            await compare(name, pair(make, plain, http, sim), options.rounds, options.events)


def pair(
    make: Callable[[Any, str, int], Run], plain: Any, limited: Any, sim: str
) -> Callable[[int], tuple[Run, Run]]:
    """Both ways to stream so many events."""
    return lambda events: (make(plain, sim, events), make(limited, sim, events))


def main() -> None:
    """Start the servers and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=1000)
    options = parser.parse_args()
    names = ("openai", "anthropic", "httpx2")
    print(sys.version.split()[0], *(f"{n} {importlib.metadata.version(n)}" for n in names))
    plenty = ["--rpm", "1000000000", "--tpm", "1000000000000", "--otpm", "1000000000000"]
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        config = Path(home, "pools.yaml")
        config.write_text(CONFIG)
        serve = ["serve", "--port", "0", "--config", str(config), "--state-dir", home]
        service = stack.enter_context(child(*serve))
        pace = ["--latency", "0", "--tokens-per-second", "1000000000", *plenty]
        sim = stack.enter_context(child("provider-sim", "--port", "0", *pace))
        asyncio.run(table(sim, service, options))


if __name__ == "__main__":
    main()
