"""Streams that break, are cancelled, closed or forgotten leave nothing behind.

    python benchmarks/stream_leaks.py [--streams 10000] [--seed 1]

The real client, a limiter service and the simulator, each in a process of its own; half of the
streams over asyncio, half in threads. Afterwards the simulator may run no call, the service
hold no lease, and this process have no connection in use, no task and no thread more than
before. Exit code 1 when something is left.
"""

import asyncio
import contextlib
import gc
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from harness import Report, options, say
from stream_faults import ASKED, PATIENT, SHAPES
from stream_reliability import PATIENCE, SLOW, processes

from client_sdk import Limiter, LLMClient, RetryPolicy, SluicegateError, SyncLimiter, SyncLLMClient

AT_ONCE = 48
ENDS = ("broken", "refused", "read", "left", "forgotten", "closed", "cancelled", "unasked")
STUCK = ("stall-after-chunks=2", "stall-before-token", "stall-before-headers", "ping-only; every=1")
BROKEN = ("drop-after-chunks=2; reset", "truncate-after-chunks=2", "garbage-after-chunks=2")
REFUSED = ("drop-before-headers; reset", "overloaded", "html", "bad-key")
LEFT = "stall-after-chunks=2"
POLICY = RetryPolicy(attempts=2, backoff=0.001, budget=None)


def fault_for(end: str, chance: random.Random) -> str:
    """What happens to a stream that shall end so."""
    match end:
        case "broken":
            return chance.choice(BROKEN)
        case "refused":
            return chance.choice(REFUSED)
        case "closed" | "cancelled":
            return chance.choice(STUCK)
        case "left" | "forgotten":
            return LEFT
        case _:
            return ""


def given(provider: str, shape: str, limiter: Any) -> dict[str, Any]:
    """What a client of the simulator is made with."""
    words = dict(SHAPES[shape])
    base_url = provider + words.pop("path")
    return {
        "base_url": base_url,
        "api_key": "k",
        "limiter": limiter,
        "resource": f"bench/{shape}",
        "timeouts": PATIENT,
        "retry": POLICY,
        **words,
    }


async def one(client: LLMClient, end: str, fault: str, wait: float) -> None:
    """A stream that ends in its way."""
    headers = {"x-sim-output-tokens": "6", "x-sim-fault": fault}
    stream = client.get_streaming_response_with_tools(ASKED, extra_headers=headers)

    async def read() -> None:
        async for _ in stream:
            pass

    match end:
        case "unasked":
            return
        case "left":
            async with stream:
                async for chunk in stream:
                    if chunk.content:
                        break
        case "forgotten":
            async for chunk in stream:
                if chunk.content:
                    break
        case "closed" | "cancelled":
            task = asyncio.create_task(read())
            await asyncio.sleep(wait)
            if end == "closed":
                await stream.aclose()
            else:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        case _:
            await read()


def one_in_thread(client: SyncLLMClient, end: str, fault: str, wait: float) -> None:
    """The same in a thread, which nobody can cancel."""
    headers = {"x-sim-output-tokens": "6", "x-sim-fault": fault}
    stream = client.get_streaming_response_with_tools(ASKED, extra_headers=headers)
    match end:
        case "unasked":
            return
        case "left":
            with stream:
                for chunk in stream:
                    if chunk.content:
                        break
        case "forgotten":
            for chunk in stream:
                if chunk.content:
                    break
        case "closed" | "cancelled":
            timer = threading.Timer(wait, stream.close)
            timer.start()
            for _ in stream:
                pass
            timer.join()
        case _:
            for _ in stream:
                pass


def sockets() -> int:
    """Open sockets of this process."""
    found = 0
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += Path(entry.path).readlink().name.startswith("socket:")
    return found


async def left_open(provider: str, service: str) -> dict[str, int]:
    """Calls and leases that are not over, once they have had time to be."""
    deadline = time.monotonic() + PATIENCE
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        while True:
            counted = (await http.get(f"{provider}/sim/counters")).json()["total"]
            answers = [await http.get(f"{service}/v1/resources/bench/{s}") for s in SHAPES]
            leases = sum(answer.json()["in_flight"] or 0 for answer in answers)
            if not counted["running"] + leases or time.monotonic() > deadline:
                return {"calls": counted["running"], "leases": leases}
            await asyncio.sleep(0.1)


async def settled_to(most: int, count: Callable[[], int]) -> int:
    """What *count* says, once it has come down to *most* or had time to."""
    deadline = time.monotonic() + PATIENCE
    while count() > most and time.monotonic() < deadline:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.05)
    return max(0, count() - most)


async def over_asyncio(provider: str, service: str, streams: int, seed: int) -> dict[str, int]:
    """What is left of so many streams in tasks."""
    chance, seen = random.Random(seed), Counter[str]()
    async with Limiter(service, options=SLOW) as limiter, contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(LLMClient(**given(provider, shape, limiter)))
            for shape in SHAPES
        ]
        for client in clients:
            await client.get_response_with_tools(ASKED)
        gate, tasks = asyncio.Semaphore(AT_ONCE), len(asyncio.all_tasks())

        async def guarded(work: Callable[[], Awaitable[None]]) -> None:
            async with gate:
                try:
                    await work()
                    seen["ended"] += 1
                except SluicegateError as error:
                    seen[type(error).__name__] += 1

        drawn = []
        for _ in range(streams):
            client, end = chance.choice(clients), chance.choice(ENDS)
            drawn.append((client, end, fault_for(end, chance), chance.uniform(0, 0.05)))
        await asyncio.gather(*(guarded(partial(one, *each)) for each in drawn))
        gc.collect()
        left = await left_open(provider, service)
        left["tasks"] = await settled_to(tasks, lambda: len(asyncio.all_tasks()))
        left["connections"] = sum(map(_in_use, clients))
    say(f"asyncio: {dict(seen)}")
    return left


async def in_threads(provider: str, service: str, streams: int, seed: int) -> dict[str, int]:
    """What is left of so many streams in threads."""
    chance, seen = random.Random(seed), Counter[str]()
    with SyncLimiter(service, options=SLOW) as limiter, contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(SyncLLMClient(**given(provider, shape, limiter)))
            for shape in SHAPES
        ]
        for client in clients:
            await asyncio.to_thread(client.get_response_with_tools, ASKED)
        with ThreadPoolExecutor(AT_ONCE) as pool:

            def guarded(client: SyncLLMClient, end: str, fault: str, wait: float) -> str:
                try:
                    one_in_thread(client, end, fault, wait)
                except SluicegateError as error:
                    return type(error).__name__
                return "ended"

            work = []
            for _ in range(streams):
                end = chance.choice(ENDS)
                client, wait = chance.choice(clients), chance.uniform(0, 0.05)
                work.append(pool.submit(guarded, client, end, fault_for(end, chance), wait))
            seen.update(await asyncio.gather(*map(asyncio.wrap_future, work)))
        gc.collect()
        left = await left_open(provider, service)
        ours = lambda: sum(t.name.startswith(_OURS) for t in threading.enumerate())  # noqa: E731
        left["threads"] = await settled_to(0, ours)
        left["connections"] = sum(map(_in_use, clients))
    say(f"threads: {dict(seen)}")
    return left


_OURS = ("sluicegate-aside", "sluicegate-close")


def _in_use(client: LLMClient | SyncLLMClient) -> int:
    shared = client._shared  # noqa: SLF001  # nothing public tells
    if shared is None:
        return 0
    pool = shared.http._transport._pool  # noqa: SLF001
    return sum(not (each.is_idle() or each.is_closed()) for each in pool.connections)


async def run(provider: str, service: str, streams: int, seed: int, report: Report) -> bool:
    """Both halves; whether nothing is left."""
    before = sockets()
    rows = []
    for name, half in (("asyncio", over_asyncio), ("threads", in_threads)):
        left = await half(provider, service, streams // 2, seed)
        rows.append({"over": name, "streams": streams // 2, **_columns(left)})
    after = await settled_to(before, sockets)
    report.table("left behind", rows)
    print(f"  sockets that were not there before: {after}")
    return not after and not any(isinstance(v, int) and v for r in rows for v in _counts(r))


def _columns(left: dict[str, int]) -> dict[str, int]:
    names = ("calls", "leases", "connections", "tasks", "threads")
    return {name: left.get(name, 0) for name in names}


def _counts(row: dict[str, Any]) -> list[int]:
    return [value for name, value in row.items() if name not in {"over", "streams"}]


def main() -> int:
    """Run it."""
    parser = options(__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    report = Report(arguments.json)
    with processes() as (provider, service):
        say(f"{arguments.streams} streams")
        good = asyncio.run(run(provider, service, arguments.streams, arguments.seed, report))
    report.close()
    print(f"\n{'nothing is left' if good else 'SOMETHING IS LEFT'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
