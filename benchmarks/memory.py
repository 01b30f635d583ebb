"""What many idle tenants, many made-up names and many waiters cost, and whether it comes back.

    python benchmarks/memory.py                                  # a million tenants: some minutes
    python benchmarks/memory.py --tenants 20000 --waiters 2000   # a short look
    python benchmarks/memory.py --tenants 0 --models 0 --waiters 100000

A real service process over a real store. Each row is a stage, of those that are asked for:

idle            nothing has happened yet
tenants         --tenants tenants with a limit of their own (12 an hour) have each taken once, over
                /v1/batch, and are idle since; what they took is refilled after 5 minutes
expired         the same, when the time to live of their state is over (--kept seconds)
models          --models made-up models where any model is served, each called once
forgotten       the same, when their time is over
waiters         --waiters acquires stand in the queue, each over a channel of the SDK
served          the queue has been called off

store MiB       what the store uses, and bytes for each key more than at first, for each waiter
service MiB     resident memory of the service: its caches have bounds, whatever callers make up
p50, p99 ms     an acquire with its settle beside them, one after another

Bars: idle tenants cost the store at most 250 bytes each and nothing after their time to live; the
service stays below 512 MiB, which is what the chart gives it.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from harness import Process, Report, Store, ended, options, quantile, say, sluicegate, store
from resident import rss

from client_sdk import Limiter, LimiterOptions, SluicegateError

CONFIG = """
pools:
  many:
    models: {"*": {}, m: {rpm: 10000000}}
    tenants: {"*": {limits: [{meter: requests, limit: 12, per: hour, burst: 12}]}, free: {}}
    lease_ttl: 2s
    remember: 1s
  line:
    models: {m: {limits: [{meter: tokens, limit: LIMIT, per: day, burst: 1000}]}}
    queue: {max_waiters: 1000000, max_wait: 1d}
    lease_ttl: 2s
    remember: 1s
"""
AT_ONCE = 128
AT_A_TIME = 4000
"""Callers that may be on their way into the queue."""
BATCHES = 4
CLIENTS = 10
LEAST_BYTES = 250
MOST_SERVICE = 512
LOOKS = 300


async def touch(client: httpx.AsyncClient, first: int, count: int, *, models: bool) -> None:
    """Let so many tenants take once, or callers of so many models take and settle."""
    took: list[dict[str, Any]] = [
        {"op": "acquire", "resource": f"many/x{n}", "tenant": "free", "tokens": 1}
        if models
        else {"op": "acquire", "resource": "many/m", "tenant": f"t{n}", "tokens": 1}
        for n in range(first, first + count)
    ]
    answers = (await client.post("/v1/batch", json={"ops": took})).json()["results"]
    wrong = [each for each in answers if each["status"] != 200]
    assert not wrong, wrong[:1]
    if models:
        reports = [{"op": "settle", "lease": each["body"]["lease"]} for each in answers]
        await client.post("/v1/batch", json={"ops": reports})


async def all_come(client: httpx.AsyncClient, count: int, *, models: bool) -> None:
    """Let all of them come once."""
    starts = iter(range(0, count, AT_ONCE))
    done = 0

    async def some() -> None:
        nonlocal done
        for first in starts:
            await touch(client, first, min(AT_ONCE, count - first), models=models)
            done += AT_ONCE
            if done % (AT_ONCE * 500) == 0:
                say(f"{done:,} have come")

    await asyncio.gather(*(some() for _ in range(BATCHES)))


async def beside(client: httpx.AsyncClient) -> list[float]:
    """Times of an acquire with its settle, in milliseconds."""
    times = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        body = {"resource": "many/m", "tokens": 1, "tenant": "free"}
        taken = (await client.post("/v1/acquire", json=body)).json()
        if "lease" in taken:
            await client.post("/v1/settle", json={"lease": taken["lease"]})
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.1 if taken.get("retry_after") else 0)
    return times


class Stages:
    """The rows."""

    def __init__(self, where: Store, service: Process, client: httpx.AsyncClient) -> None:
        self._where, self._service, self._client = where, service, client
        self.rows: list[dict[str, Any]] = []
        self._idle, self._keys = 0, 0

    async def look(self, name: str, count: int) -> dict[str, Any]:
        """What it costs now, *count* being of what there is much."""
        keys = int(self._where.redis.dbsize())  # type: ignore[arg-type]  # not a coroutine here
        memory, service = self._where.memory(), rss(self._service.pid)
        times = await beside(self._client)
        if not self.rows:
            self._idle, self._keys = memory, keys
        row = {
            "stage": name,
            "count": count,
            "keys": keys,
            "store MiB": memory / 2**20,
            "bytes each": (memory - self._idle) / (keys - self._keys) if count else 0.0,
            "service MiB": service / 2**20,
            "client MiB": rss(os.getpid()) / 2**20,
            "p50 ms": quantile(times, 0.5),
            "p99 ms": quantile(times, 0.99),
        }
        self.rows.append(row)
        say(
            f"{name}: {keys:,} keys, store {row['store MiB']:.1f}, service {row['service MiB']:.1f}"
        )
        return row


async def gone(where: Store, keep: int, timeout: float) -> None:
    """Return when the store has let go of what is over."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if int(where.redis.dbsize()) <= keep:  # type: ignore[arg-type]  # likewise
            return
        await asyncio.sleep(1.0)


async def crowd(service: Process, count: int) -> list[asyncio.Task[None]]:
    """So many callers that wait for what hardly comes."""
    settings = LimiterOptions(timeout=60.0, connect_timeout=20.0, channel="only")
    limiters = [Limiter(service.url, options=settings) for _ in range(CLIENTS)]

    async def wait(n: int) -> None:
        limiter = limiters[n % CLIENTS]
        with contextlib.suppress(SluicegateError):
            await limiter.acquire("line/m", tokens=1, tenant=f"w{n % 1000}", max_wait=86_000)

    tasks: list[asyncio.Task[None]] = []

    async def all_of_them() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await ended(tasks)
            for limiter in limiters:
                await limiter.aclose()

    task = asyncio.create_task(all_of_them())
    deadline = time.monotonic() + 1800
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        told = depth = 0
        while depth < count * 0.95 and time.monotonic() < deadline:
            # So many more when the last ones stand in line: a crowd is no outage of the store.
            more = min(count, depth + AT_A_TIME) - len(tasks)
            tasks += [asyncio.create_task(wait(len(tasks) + n)) for n in range(max(0, more))]
            await asyncio.sleep(0.1)
            depth = (await client.get("/v1/queue/line")).json()["depth"]
            if depth >= told + count // 10:
                told = depth
                say(f"{depth:,} wait")
    return [task]


async def measure(where: Store, service: Process, given: Any) -> Stages:
    """Stage after stage."""
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        stages = Stages(where, service, client)
        await stages.look("idle", 0)
        if given.tenants:
            began = time.monotonic()
            await all_come(client, given.tenants, models=False)
            say(f"{given.tenants:,} tenants came in {time.monotonic() - began:.0f} s")
            await gone(where, given.tenants + 100, 30)  # leases are over after seconds
            await stages.look("tenants", given.tenants)
            say("waiting until their state is over")
            await gone(where, 100, given.kept)
            await stages.look("expired", 0)
        if given.models:
            await all_come(client, given.models, models=True)
            await gone(where, given.models + 100, 10)
            await stages.look("models", given.models)
            await gone(where, 100, given.kept)
            await stages.look("forgotten", 0)
        if given.waiters:
            body = {"resource": "line/m", "tokens": 1000}
            await client.post("/v1/acquire", json=body)  # the last of them fits within a day
            tasks = await crowd(service, given.waiters)
            row = await stages.look("waiters", given.waiters)
            row["bytes each"] = (row["store MiB"] - stages.rows[-2]["store MiB"]) * 2**20
            row["bytes each"] /= given.waiters
            await ended(tasks)
            await gone(where, 100, 60)
            await stages.look("served", 0)
    return stages


def main() -> None:
    """Measure once."""
    parser = options(__doc__)
    parser.add_argument("--tenants", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=50_000)
    parser.add_argument("--waiters", type=int, default=20_000)
    parser.add_argument("--kept", type=float, default=1800.0, help="longest wait for expiry, s")
    given = parser.parse_args()
    report = Report(given.json)
    with store(given.server) as where, tempfile.TemporaryDirectory() as home:
        pools = Path(home, "pools.yaml")
        pools.write_text(CONFIG.replace("LIMIT", str(2000 + given.waiters)))
        words = ["--config", str(pools), "--redis-url", where.url, "--log-level", "error"]
        say(where.name)
        with sluicegate("serve", *words) as service:
            stages = asyncio.run(measure(where, service, given))
    report.table("memory", stages.rows)
    report.close()
    of = {row["stage"]: row for row in stages.rows}
    missed = []
    if given.tenants and of["tenants"]["bytes each"] > LEAST_BYTES:
        missed.append(f"a tenant costs more than {LEAST_BYTES} bytes")
    if max(row["service MiB"] for row in stages.rows) > MOST_SERVICE:
        missed.append(f"the service needs more than {MOST_SERVICE} MiB")
    if max((of[name]["keys"] for name in ("expired", "forgotten") if name in of), default=0) > 100:
        missed.append("state is left when its time is over")
    for each in missed:
        say(f"MISSED: {each}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
