"""Acquires per second through the SDK, the service and the store, at several widths.

    python benchmarks/throughput.py [--seconds 4] [--rounds 3]

A real service process with its embedded store; callers are tasks of one client process, each
acquiring in a closed loop. Latencies of a saturated closed loop are queueing. Widths are
interleaved; CPU is per acquire, of client, service and store.
"""

import argparse
import asyncio
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from client_sdk import Limiter

CONFIG = """
pools:
  bench:
    models:
      "*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}
"""
WIDTHS = (1, 8, 64, 256)
_TICKS = os.sysconf("SC_CLK_TCK")


def process_cpu(pid: int) -> float:
    """Seconds of CPU of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def own_cpu() -> float:
    """Seconds of CPU of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def drive(limiter: Limiter, width: int, seconds: float) -> tuple[int, list[float]]:
    """Acquire in *width* loops for *seconds*; how many, and the latency of each."""
    stop = time.perf_counter() + seconds
    latencies: list[float] = []

    async def loop(number: int) -> None:
        while time.perf_counter() < stop:
            began = time.perf_counter()
            await limiter.acquire(f"bench/m{number % 10}", tokens=100)
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(loop(number) for number in range(width)))
    return len(latencies), latencies


async def measure(url: str, pids: tuple[int, int], seconds: float, rounds: int) -> None:
    """Print one row per width: medians over the rounds."""
    rows: dict[int, list[tuple[float, ...]]] = {width: [] for width in WIDTHS}
    async with Limiter(url) as limiter:
        await drive(limiter, 8, 1.0)
        for _ in range(rounds):
            for width in WIDTHS:
                before = (own_cpu(), *map(process_cpu, pids))
                began = time.perf_counter()
                count, latencies = await drive(limiter, width, seconds)
                elapsed = time.perf_counter() - began
                after = (own_cpu(), *map(process_cpu, pids))
                cpu = [(b - a) / count * 1e6 for a, b in zip(before, after, strict=True)]
                latencies.sort()
                p50, p99 = latencies[count // 2] * 1e3, latencies[int(count * 0.99)] * 1e3
                rows[width].append((count / elapsed, p50, p99, *cpu))
    print(
        f"{'callers':>8}{'acquires/s':>12}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'client µs':>11}{'service µs':>12}{'store µs':>10}"
    )
    for width, values in rows.items():
        rate, p50, p99, *cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(
            f"{width:8}{rate:12.0f}{p50:9.2f}{p99:9.2f}{cpu[0]:11.1f}{cpu[1]:12.1f}{cpu[2]:10.1f}"
        )


def main() -> None:
    """Start the service, measure, stop it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "pools.yaml")
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "limiter_service", "serve", "--port", "0"]
        command += ["--config", str(config), "--state-dir", f"{home}/state"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
            assert service.stdout is not None
            url = next(
                found[1]
                for line in service.stdout
                if (found := re.match("listening on (.+)", line))
            )
            store = int(Path(home, "state", "valkey.pid").read_text())
            asyncio.run(measure(url, (service.pid, store), options.seconds, options.rounds))
            service.terminate()


if __name__ == "__main__":
    main()
