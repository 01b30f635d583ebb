"""Bytes per second of the dashboard's stream, as it is and in gzip, and what it costs the service.

    python benchmarks/live_volume.py [--resources 200] [--seconds 10] [--rate 200]

A real service over a store of its own, with so many models in one pool (a request, a token and a
concurrency limit each), read by one watcher without and with `Accept-Encoding: gzip`: first while
nothing is asked for, then while acquires of all models in turn are asked for and settled, so many a
second. `kB/s` is what comes over the wire from the second moment on; CPU is that of the service, in
percent of a core, with what it takes to look.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from random import Random

import httpx
from harness import Process, Report, Value, cpu_of, ended, options, say, services
from harness import store as a_store

HEAD = "pools:\n  bench:\n    models:\n"
MODEL = "      m{}: {{rpm: 6000, tpm: 6000000, concurrency: 64}}\n"


async def watched(service: Process, *, squeezed: bool, seconds: int) -> tuple[float, float]:
    """Bytes per second and share of a core, over so many moments."""
    headers = {"accept-encoding": "gzip" if squeezed else "identity"}
    async with (
        httpx.AsyncClient(base_url=service.url, timeout=20) as client,
        client.stream("GET", "/v1/live", headers=headers) as answer,
    ):
        moments, at, clock = 0, 0, asyncio.get_running_loop().time
        began, cpu = 0.0, 0.0
        async for part in answer.aiter_bytes():
            count = part.count(b"event: live")
            if not count:
                continue
            moments += count
            if moments >= 2 and not began:  # the first comes with the past
                began, cpu, at = clock(), cpu_of(service.pid), answer.num_bytes_downloaded
                moments = 2
            if began and moments >= 2 + seconds:
                took = clock() - began
                received = answer.num_bytes_downloaded - at
                return received / took, (cpu_of(service.pid) - cpu) / took
    raise AssertionError("the stream has ended")


@contextlib.asynccontextmanager
async def traffic(service: Process, resources: int, rate: float) -> AsyncIterator[None]:
    """Acquires and settles, *rate* a second, while the block lasts."""
    numbers, chance = itertools.count(), Random(1)  # the same calls in every run
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:

        async def call() -> None:
            name = f"bench/m{next(numbers) % resources}"
            body = {"resource": name, "tokens": chance.randrange(100, 2000)}
            lease = (await client.post("/v1/acquire", json=body)).json().get("lease")
            usage = {"input_tokens": chance.randrange(50, 1000), "output_tokens": 50}
            report = {"lease": lease, "outcome": "success", "usage": usage}
            await client.post("/v1/settle", json=report)

        async def calls() -> None:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(call())
                    await asyncio.sleep(1 / rate)

        task = asyncio.create_task(calls())
        try:
            yield
        finally:
            await ended([task])


async def measure(
    service: Process, resources: int, seconds: int, rate: float
) -> list[dict[str, Value]]:
    """A row for each way to read, idle and busy."""
    rows: list[dict[str, Value]] = []
    for busy, squeezed in itertools.product((False, True), (False, True)):
        name = f"{'busy' if busy else 'idle'}, {'gzip' if squeezed else 'as it is'}"
        say(name)
        work = traffic(service, resources, rate) if busy else contextlib.nullcontext()
        async with work:
            received, cpu = await watched(service, squeezed=squeezed, seconds=seconds)
        rows.append({"stream": name, "kB/s": received / 1000, "CPU %": cpu * 100})
    return rows


def main() -> None:
    """Start a store and a service, and measure."""
    parser = options(__doc__)
    parser.add_argument("--resources", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=200.0)
    given = parser.parse_args()
    report = Report(given.json)
    config = HEAD + "".join(MODEL.format(i) for i in range(given.resources))
    with a_store(given.server) as where, services(where.url, config, 1) as (service,):
        rows = asyncio.run(measure(service, given.resources, given.seconds, given.rate))
    report.table(f"/v1/live with {given.resources} resources, one watcher", rows)
    report.close()


if __name__ == "__main__":
    main()
