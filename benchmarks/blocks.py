"""Blocks: how fast a process hands out what it holds, and whether four of them keep the limit.

    python benchmarks/blocks.py [--rounds 7] [--calls 2000] [--limit 1000000] [--json FILE]

A real service process with its embedded store. One process holds a block and hands it out: by
the innermost call (`Stock.take`), by `async with limiter.acquire(...)` that says what it used, and
by `with` of the sync client. Figures are medians over the rounds, with their range; p99 is over
the calls of all rounds, with the clock's own cost in it.

Then the whole path, blocks asked for and given back included: acquires per second, and CPU of
client, service and store for each.

Then four processes spend one limit to its end. What they were granted is compared with what the
store says is gone; held is the most that stood in blocks at any look, a hundred a second. At last
a holder is killed, and the time until nothing is held is told.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx
import redis
from harness import Report
from throughput import own_cpu, process_cpu

from client_sdk import Limiter, LimiterOptions, RateLimited, SyncLimiter, Usage
from client_sdk.blocks import Stock
from limiter_service.store.keys import Keys
from limiter_service.store.scripts import load

SHARE, HOLD, BURST = 0.02, 2.0, 10_000
CONFIG = """
pools:
  bench:
    blocks: {{share: {share}, hold: {hold}s}}
    models:
      fast: {{rpm: 1000000000, tpm: 100000000000, rpd: 1000000000}}
      shared: {{limits: [{{name: calls, meter: requests, limit: {limit}, per: 366d}}]}}
"""
OPTIONS = LimiterOptions(timeout=30)


@contextmanager
def service(limit: int) -> Iterator[tuple[str, tuple[int, int], Path]]:
    """A service process with its store: where it listens, the ids of both, the store's socket."""
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "pools.yaml")
        config.write_text(CONFIG.format(share=SHARE, hold=HOLD, limit=limit))
        command = [sys.executable, "-m", "limiter_service", "serve", "--port", "0"]
        command += ["--config", str(config), "--state-dir", f"{home}/state"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = next(line.split()[-1] for line in process.stdout if line.startswith("listening"))
            state = Path(home, "state")
            store = int((state / "valkey.pid").read_text())
            try:
                yield url, (process.pid, store), state / "valkey.sock"
            finally:
                process.terminate()


# How fast one process hands out


def stock_of(limiter: Limiter | SyncLimiter) -> Stock | None:
    """What a limiter holds of the fast model."""
    prefetch = limiter._prefetch  # noqa: SLF001  # what is measured is inside
    assert prefetch is not None
    return prefetch.stock("bench/fast", "default")


def holds(limiter: Limiter | SyncLimiter, calls: int) -> bool:
    """Whether so many calls can be handed out now, before their time is over."""
    stock = stock_of(limiter)
    block = stock.block if stock is not None else None
    return block is not None and block.calls >= calls and block.until > time.monotonic() + 0.5


async def call(limiter: Limiter) -> None:
    """One call as programs make it."""
    async with limiter.acquire("bench/fast", tokens=100) as lease:
        lease.used(input_tokens=60, output_tokens=20)


def call_sync(limiter: SyncLimiter) -> None:
    """The same of a thread."""
    with limiter.acquire("bench/fast", tokens=100) as lease:
        lease.used(input_tokens=60, output_tokens=20)


def innermost(limiter: Limiter, calls: int) -> tuple[float, list[int]]:
    """Seconds that *calls* takes need, and the nanoseconds of each of as many more."""
    stock = stock_of(limiter)
    assert stock is not None
    assert stock.block is not None
    block, take, usage = stock.block, stock.take, Usage(input_tokens=60, output_tokens=20)
    now = time.monotonic()
    began = time.perf_counter()
    for _ in range(calls):
        take(100, now)
    took = time.perf_counter() - began
    times = []
    for _ in range(calls):
        before = time.perf_counter_ns()
        taken = take(100, now)
        times.append(time.perf_counter_ns() - before)
        assert taken is block, "out of one block"
    for _ in range(2 * calls):
        block.end_well(100, usage)
    return took, times


async def entered(limiter: Limiter, calls: int) -> tuple[float, list[int]]:
    """The same for the context manager."""
    began = time.perf_counter()
    for _ in range(calls):
        async with limiter.acquire("bench/fast", tokens=100) as lease:
            lease.used(input_tokens=60, output_tokens=20)
    took = time.perf_counter() - began
    times = []
    for _ in range(calls):
        before = time.perf_counter_ns()
        async with limiter.acquire("bench/fast", tokens=100) as lease:
            lease.used(input_tokens=60, output_tokens=20)
        times.append(time.perf_counter_ns() - before)
    return took, times


def entered_sync(limiter: SyncLimiter, calls: int) -> tuple[float, list[int]]:
    """The same for that of threads."""
    began = time.perf_counter()
    for _ in range(calls):
        with limiter.acquire("bench/fast", tokens=100) as lease:
            lease.used(input_tokens=60, output_tokens=20)
    took = time.perf_counter() - began
    times = []
    for _ in range(calls):
        before = time.perf_counter_ns()
        with limiter.acquire("bench/fast", tokens=100) as lease:
            lease.used(input_tokens=60, output_tokens=20)
        times.append(time.perf_counter_ns() - before)
    return took, times


async def held_speed(url: str, rounds: int, calls: int) -> dict[str, list[tuple[float, list[int]]]]:
    """Both ways of tasks, by turns, each out of a block that has room for all of it."""
    found: dict[str, list[tuple[float, list[int]]]] = {"innermost call": [], "async with": []}
    async with Limiter(url, prefetch=BURST, options=OPTIONS) as limiter:
        for _ in range(rounds):
            for way, measured in found.items():
                while not holds(limiter, 2 * calls):
                    await call(limiter)
                if way == "async with":
                    measured.append(await entered(limiter, calls))
                else:
                    measured.append(innermost(limiter, calls))
    return found


def held_speed_sync(url: str, rounds: int, calls: int) -> list[tuple[float, list[int]]]:
    """That of threads."""
    found = []
    with SyncLimiter(url, prefetch=BURST, options=OPTIONS) as limiter:
        for _ in range(rounds):
            while not holds(limiter, 2 * calls):
                call_sync(limiter)
            found.append(entered_sync(limiter, calls))
    return found


def speed_row(way: str, calls: int, found: list[tuple[float, list[int]]]) -> dict[str, str]:
    """Rates and latencies of one way."""
    rates = sorted(calls / took for took, _ in found)
    times = sorted(each for _, some in found for each in some)
    spread = f"{rates[0]:,.0f}-{rates[-1]:,.0f}"
    return {
        "way": way,
        "acquires/s": f"{statistics.median(rates):,.0f}",
        "range": spread,
        "p50 us": f"{times[len(times) // 2] / 1000:.2f}",
        "p99 us": f"{times[len(times) * 99 // 100] / 1000:.2f}",
    }


async def whole_path(url: str, pids: tuple[int, int], rounds: int) -> list[dict[str, str]]:
    """Calls for a second, one after another, with and without blocks, by turns."""
    found: dict[str, list[list[float]]] = {"with blocks": [], "asked one by one": []}
    async with (
        Limiter(url, prefetch=BURST, options=OPTIONS) as holding,
        Limiter(url, options=OPTIONS) as asking,
    ):
        limiters = {"with blocks": holding, "asked one by one": asking}
        for limiter in limiters.values():
            await _for(limiter, 1.0)
        for _ in range(rounds):
            for way, limiter in limiters.items():
                before = (own_cpu(), *map(process_cpu, pids))
                began = time.perf_counter()
                count = await _for(limiter, 1.0)
                took = time.perf_counter() - began
                after = (own_cpu(), *map(process_cpu, pids))
                cpu = [(b - a) / count * 1e6 for a, b in zip(before, after, strict=True)]
                found[way].append([count / took, *cpu])
    rows = []
    for way, values in found.items():
        rate, *cpu = (statistics.median(column) for column in zip(*values, strict=True))
        parts = dict(zip(("client", "service", "store"), (f"{c:.2f}" for c in cpu), strict=True))
        rows.append(
            {"way": way, "acquires/s": f"{rate:,.0f}", "CPU us": f"{sum(cpu):.2f}", **parts}
        )
    return rows


async def _for(limiter: Limiter, seconds: float) -> int:
    stop, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < stop:
        for _ in range(20):
            await call(limiter)
        count += 20
    return count


# Four processes and one limit


async def spend(url: str) -> dict[str, int]:
    """Spend the shared limit until nothing is granted any more."""
    granted = handed = 0

    async def loop() -> None:
        nonlocal granted, handed
        refused = 0
        while refused < 5:
            try:
                async with limiter.acquire("bench/shared", tokens=1) as lease:
                    granted += 1
                    handed += lease.id.startswith("block.")
                await asyncio.sleep(0)
            except RateLimited:
                refused += 1
                await asyncio.sleep(HOLD / 4)

    async with Limiter(url, prefetch=BURST, options=OPTIONS) as limiter:
        await asyncio.gather(*(loop() for _ in range(8)))
    return {"granted": granted, "handed": handed}


class Look:
    """Looks into the store a hundred times a second: the most that blocks hold."""

    def __init__(self, socket: Path) -> None:
        self._client = redis.Redis(unix_socket_path=str(socket))
        keys = Keys("bench")
        self._keys = (keys.blocks(), keys.queue(), keys.pin())
        self._script = load("blocks").text
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def held(self) -> int:
        """Calls that blocks hold now."""
        answer = self._client.eval(self._script, len(self._keys), *self._keys, b"\0" * 8)
        return int(memoryview(answer[9:]).cast("d")[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, self.held())


def share_limit(url: str, socket: Path, limit: int) -> dict[str, str]:
    """Four processes spend it; what they were granted, and what the store says."""
    command = [sys.executable, __file__, "--spend", url]
    began = time.perf_counter()
    with Look(socket) as look:
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # ourselves
            for _ in range(4)
        ]
        said = [json.loads(each.communicate()[0]) for each in running]
    took = time.perf_counter() - began
    granted, handed = (sum(each[name] for each in said) for name in ("granted", "handed"))
    (level,) = httpx.get(f"{url}/v1/resources/bench/shared").json()["limits"]
    back = limit * took / (366 * 86_400)
    return {
        "limit": f"{limit:,}",
        "granted": f"{granted:,}",
        "of blocks": f"{100 * handed / granted:.2f} %",
        "beyond the limit": f"{max(0.0, granted - limit - back):.0f}",
        "left at the store": f"{level['remaining']:.0f}",
        "lost or doubled": f"{limit + back - level['remaining'] - granted:+.0f}",
        "held at most": f"{100 * look.most / limit:.2f} %",
        "held at the end": f"{look.held()}",
    }


def kill(url: str, socket: Path) -> dict[str, str]:
    """Kill a process that holds a block, and wait until nothing is held."""
    command = [sys.executable, __file__, "--hold", url]
    look = Look(socket)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        held, began = look.held(), time.perf_counter()
        holder.kill()
    while look.held():
        time.sleep(0.005)
    return {"held": f"{held}", "s until nothing is": f"{time.perf_counter() - began:.2f}"}


def hold(url: str) -> None:
    """Hold a block, and do nothing."""
    limiter = SyncLimiter(url, prefetch=BURST, options=OPTIONS)
    while not holds(limiter, 10):
        call_sync(limiter)
    print("held", flush=True)
    threading.Event().wait()


def main() -> None:
    """Start the service, measure, stop it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--limit", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--spend", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--hold", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.spend:
        print(json.dumps(asyncio.run(spend(options.spend))))
        return
    if options.hold:
        hold(options.hold)
        return
    report = Report(options.json)
    with service(options.limit) as (url, pids, socket):
        found = asyncio.run(held_speed(url, options.rounds, options.calls))
        found["with (threads)"] = held_speed_sync(url, options.rounds, options.calls)
        report.table(
            "Out of a held block",
            [speed_row(way, options.calls, some) for way, some in found.items()],
        )
        path = asyncio.run(whole_path(url, pids, options.rounds))
        report.table("The whole path, one caller", path)
        report.table("Four processes, one limit", [share_limit(url, socket, options.limit)])
        report.table("A holder is killed", [kill(url, socket)])
    report.close()


if __name__ == "__main__":
    main()
