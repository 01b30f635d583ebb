"""The channel against `/v1/batch` over httpx: acquire and settle, and what waiting costs.

    python benchmarks/channel.py [--seconds 3] [--rounds 5] [--waiting 1000]

A real service process with its embedded store; callers are tasks of one client process, each
acquiring and settling in a closed loop. The two ways and the widths are interleaved; figures
are medians over the rounds, with the range of the ratio. CPU is per acquire with its settle, of
client, service and store together.

Then a thousand callers stand in the queue for a slot that stays taken: CPU of client, service
and store while nothing happens, as a share of one core. `queue_idle.py` has more of that.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from throughput import own_cpu, process_cpu

from client_sdk import Limiter, LimiterOptions, SluicegateError

CONFIG = """
pools:
  bench:
    queue: {max_wait: 1h}
    models:
      "*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}
      taken: {limits: [{meter: concurrency, limit: 1}]}
"""
WIDTHS = (1, 64, 512)
WAYS = ("channel", "batch")


async def drive(limiter: Limiter, width: int, seconds: float) -> int:
    """Acquire and settle in *width* loops for *seconds*; how many."""
    stop = time.perf_counter() + seconds
    count = 0

    async def loop(number: int) -> None:
        nonlocal count
        while time.perf_counter() < stop:
            async with limiter.acquire(f"bench/m{number % 10}", tokens=100) as lease:
                lease.used(input_tokens=60)
            count += 1

    await asyncio.gather(*(loop(number) for number in range(width)))
    return count


async def compare(url: str, pids: tuple[int, int], seconds: float, rounds: int) -> None:
    """Print a row per width: rate and CPU of both ways, and the ratio within a round."""
    rows: dict[tuple[int, str], list[tuple[float, ...]]] = {
        (width, way): [] for width in WIDTHS for way in WAYS
    }
    async with (
        Limiter(url, options=LimiterOptions(channel="only", timeout=30)) as channel,
        Limiter(url, options=LimiterOptions(channel="off", timeout=30)) as batch,
    ):
        limiters = {"channel": channel, "batch": batch}
        for limiter in limiters.values():
            await drive(limiter, 8, 0.5)
        for _ in range(rounds):
            for (width, way), found in rows.items():
                before = (own_cpu(), *map(process_cpu, pids))
                began = time.perf_counter()
                count = await drive(limiters[way], width, seconds)
                elapsed = time.perf_counter() - began
                after = (own_cpu(), *map(process_cpu, pids))
                cpu = [(b - a) / count * 1e6 for a, b in zip(before, after, strict=True)]
                found.append((count / elapsed, sum(cpu), *cpu))
    print(
        f"{'callers':>8}  {'way':8}{'acquires/s':>11}{'CPU µs':>9}"
        f"{'client':>9}{'service':>9}{'store':>8}   batch / channel"
    )
    for (width, way), values in rows.items():
        rate, total, *cpu = (statistics.median(c) for c in zip(*values, strict=True))
        ratio = ""
        if way == "batch":
            pairs = zip(values, rows[width, "channel"], strict=True)
            ratios = sorted(mine[1] / other[1] for mine, other in pairs)
            ratio = f"   {statistics.median(ratios):.1f} ({ratios[0]:.1f}-{ratios[-1]:.1f})"
        print(
            f"{width:8}  {way:8}{rate:11.0f}{total:9.1f}"
            f"{cpu[0]:9.1f}{cpu[1]:9.1f}{cpu[2]:8.1f}{ratio}"
        )


async def wait(url: str, pids: tuple[int, int], callers: int, seconds: float) -> None:
    """Print what *callers* cost that wait on one channel while nothing happens."""
    async with Limiter(url, options=LimiterOptions(channel="only", timeout=30)) as limiter:
        await limiter.acquire("bench/taken", tokens=1)
        waiting = [asyncio.create_task(_wait(limiter)) for _ in range(callers)]
        await asyncio.sleep(3)
        assert not any(task.done() for task in waiting)
        before = (own_cpu(), *map(process_cpu, pids))
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        elapsed = time.perf_counter() - began
        after = (own_cpu(), *map(process_cpu, pids))
        shares = [(b - a) / elapsed * 100 for a, b in zip(before, after, strict=True)]
        print(
            f"{callers} callers wait for {elapsed:.0f} s: client {shares[0]:.2f} %, "
            f"service {shares[1]:.2f} %, store {shares[2]:.2f} % of a core"
        )
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def _wait(limiter: Limiter) -> None:
    with contextlib.suppress(SluicegateError):
        await limiter.acquire("bench/taken", tokens=1, max_wait=3600)


@contextlib.contextmanager
def service() -> Iterator[tuple[str, tuple[int, int]]]:
    """A service process with its store: where it listens, and the ids of both."""
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "pools.yaml")
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "limiter_service", "serve", "--port", "0"]
        command += ["--config", str(config), "--state-dir", f"{home}/state"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = next(line.split()[-1] for line in process.stdout if line.startswith("listening"))
            store = int(Path(home, "state", "valkey.pid").read_text())
            try:
                yield url, (process.pid, store)
            finally:
                process.terminate()


def main() -> None:
    """Start the service, measure, stop it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waiting", type=int, default=1000)
    options = parser.parse_args()
    with service() as (url, pids):
        asyncio.run(compare(url, pids, options.seconds, options.rounds))
        asyncio.run(wait(url, pids, options.waiting, 10 * options.seconds))


if __name__ == "__main__":
    main()
