"""One contestant in a process of its own: it does one thing in loops, as its stdin says.

    python contestant.py MODULE NAME URL

A line of stdin is JSON: `{"width": 64, "seconds": 2}`, so many loops that never pause, or
`{"rate": 200, "seconds": 2}`, calls that begin by chance and wait for nobody. A line of stdout
that begins with `=>` answers it. This runs in environments that hold none of our packages: it
imports the standard library, uvloop, and the module with the contestant.
"""

import asyncio
import importlib
import json
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

Call = Callable[[int], Awaitable[object]]


class Count:
    """What one run has seen."""

    def __init__(self) -> None:
        self.begun, self.failed = 0, 0
        self.latencies: list[float] = []
        self.failure = ""

    async def one(self, call: Call) -> None:
        """Call once."""
        number = self.begun
        self.begun += 1
        began = time.perf_counter()
        try:
            await call(number)
        except Exception as error:  # noqa: BLE001  # peers fail under contention: that is a result
            self.failed += 1
            self.failure = f"{type(error).__name__}: {error}"[:200]
        else:
            self.latencies.append(time.perf_counter() - began)


def cpu() -> float:
    """Seconds of CPU of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def closed(call: Call, width: int, seconds: float) -> Count:
    """*width* loops that call again as soon as they are answered."""
    count, stop = Count(), time.perf_counter() + seconds

    async def loop() -> None:
        while time.perf_counter() < stop:
            await count.one(call)

    await asyncio.gather(*(loop() for _ in range(width)))
    return count


async def opened(call: Call, rate: float, seconds: float) -> Count:
    """Calls that begin at random moments, *rate* of them a second, whether others have ended."""
    count, chance, loop = Count(), random.Random(7), asyncio.get_running_loop()
    under_way: set[asyncio.Task[None]] = set()
    stop = due = loop.time()
    stop += seconds
    while (due := due + chance.expovariate(rate)) < stop:
        await asyncio.sleep(max(0.0, due - loop.time()))
        task = loop.create_task(count.one(call))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    return count


async def run(call: Call, order: dict[str, float]) -> dict[str, object]:
    """Do what a line asks for."""
    before, began = cpu(), time.perf_counter()
    if "rate" in order:
        count = await opened(call, order["rate"], order["seconds"])
    else:
        count = await closed(call, int(order["width"]), order["seconds"])
    elapsed, spent = time.perf_counter() - began, cpu() - before
    found = sorted(count.latencies) or [0.0]
    at = {f"p{q}": found[min(len(found) - 1, len(found) * q // 100)] for q in (50, 95, 99)}
    done = {"count": len(count.latencies), "failed": count.failed, "failure": count.failure}
    return {**done, **at, "elapsed": elapsed, "cpu": spent}


async def main(module: str, name: str, url: str) -> None:
    """Open the contestant, do what is asked until stdin ends, close it."""
    async with importlib.import_module(module).CONTESTANTS[name](url) as call:
        print("=> ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print("=>", json.dumps(await run(call, json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
