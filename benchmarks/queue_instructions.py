"""How many instructions of the store an operation on the queue takes, by how many wait.

    python benchmarks/queue_instructions.py [--sizes 1000 10000 100000] [--shapes '1 line' ...]

Times grow with a queue also because more memory misses the caches, and they grow with
whatever else a machine does; instructions do not. The server runs under callgrind (valgrind),
which counts all that it executes: the command is read, decided, answered. Scripts are called
as the service calls them; the queue is filled without counting. Bar: log n, which is a factor
of 1.67 from 1,000 to 100,000 waiters. Shapes of the queue: as in queue_scale.py.

join           stand in line behind others, forecast included
join, new line the same, as the first waiter of a tenant
ask again      a waiter asks for its place and forecast
pass, 1 grant  a settle has made room for one: it is granted, the next finds none
fetch          a caller takes its grant
pass, none     a pass that finds no room
leave          cancel a waiter from anywhere in the queue
leave, head    the first one of a line with others behind it (of lines of one: all of it)
leave, alone   the only one of its line
sweep          look at 500 waiters for those out of sight; there are none

Takes ten to twenty minutes on a free core. Does nothing where valgrind is not installed.
"""

import asyncio
import contextlib
import itertools
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import Report, Store, Value, options, replicas, say, store
from queue_crowd import SHAPES, TOKENS, Crowd, Shape, config

SAMPLE, PASSES, SWEEPS, LOOK_AT = 60, 10, 4, 500
TOOLS = ("valgrind", "vgdb")


class Counter:
    """Counts the instructions of a server that runs under callgrind."""

    def __init__(self, where: Store, home: Path) -> None:
        self._pid, self._home = where.pid, home
        self._counts: dict[str, list[float]] = {}
        self._on = False

    def _tell(self, *words: str) -> None:
        command = ["vgdb", f"--pid={self._pid}", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Within this the server is slow, and `of` counts; otherwise it does nothing."""
        self._counts, self._on = {}, True
        self._tell("instrumentation", "on")
        yield
        self._tell("instrumentation", "off")
        self._on = False

    @contextlib.contextmanager
    def of(self, name: str, count: int = 1) -> Iterator[None]:
        """Count what is done within `with`, which is *count* operations called *name*."""
        if not self._on:
            yield
            return
        self._tell("zero")
        yield
        known = set(self._home.iterdir())
        self._tell("dump")
        (profile,) = set(self._home.iterdir()) - known
        lines = profile.read_text().splitlines()
        (total,) = (int(line.split()[1]) for line in lines if line.startswith("totals:"))
        self._counts.setdefault(name, []).append(total / count)
        profile.unlink()

    @property
    def found(self) -> dict[str, int]:
        """Instructions of one operation: the median, where it was counted more than once."""
        return {name: round(statistics.median(each)) for name, each in self._counts.items()}


@contextlib.contextmanager
def counted_store(binary: str | None) -> Iterator[tuple[Store, Counter]]:
    """A server under callgrind."""
    with tempfile.TemporaryDirectory() as profiles:
        under = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"]
        under.append(f"--callgrind-out-file={profiles}/profile")
        with store(binary, under=under) as where:
            where.redis.config_set("hz", 1)  # what the server does beside
            yield where, Counter(where, Path(profiles))


async def settled(crowd: Crowd) -> None:
    """Nothing is left to do, and the chains of the next lines are known."""
    while (await crowd.pass_over(())).missing:
        pass


async def operations(crowd: Crowd, counter: Counter) -> None:
    """All of them, on the crowd as it is."""
    new = await crowd.strangers(SAMPLE)
    with counter.of("join", SAMPLE):
        await crowd.join(SAMPLE)
    with counter.of("join, new line", SAMPLE):
        await crowd.ask(new)
    again = crowd.somebody(SAMPLE)
    with counter.of("ask again", SAMPLE):
        await crowd.ask(again)
    with counter.of("leave, alone", SAMPLE):
        await crowd.leave(new)
    for _ in range(PASSES):
        await settled(crowd)
        with counter.of("pass, none"):
            none = await crowd.pass_over(())
        assert none.granted == 0, none
    for _ in range(PASSES):
        room, one = [await crowd.settle()], none
        while not one.granted:  # a chain was missing
            with counter.of("pass, 1 grant"):
                one = await crowd.pass_over(room)
        assert one.granted == 1, one
        with counter.of("fetch"):
            await crowd.fetch([*set(one.again)])
        await settled(crowd)
    anybody = crowd.somebody(SAMPLE)
    with counter.of("leave", SAMPLE):
        await crowd.leave(anybody)
    first = list(itertools.islice(crowd.waiting, SAMPLE))
    with counter.of("leave, head", SAMPLE):
        await crowd.leave(first)
    place = crowd.place(len(crowd.waiting) // 4)
    with counter.of("sweep", SWEEPS):
        for _ in range(SWEEPS):
            assert await crowd.sweep(place, LOOK_AT) == 0


async def counts(binary: str | None, report: Report, shape: Shape, sizes: Sequence[int]) -> float:
    """Every operation at every size; by how much the one that grows most does."""
    rows: dict[str, dict[str, Value]] = {}
    with counted_store(binary) as (where, counter):
        async with replicas(where.url, config(TOKENS, None), 1) as (replica,):
            crowd = Crowd(where, replica, shape, PASSES)
            await crowd.drain()
            await crowd.join(sizes[0])
            await operations(crowd, counter)  # the scripts are loaded with it
            for size in sizes:
                await crowd.join(size - len(crowd.waiting))
                with counter.counting():
                    await operations(crowd, counter)
                for name, found in counter.found.items():
                    rows.setdefault(name, {"": name})[f"{size:,}"] = found
                say(f"{shape.name}: {size:,} waiters")
    grown = [int(row[f"{sizes[-1]:,}"]) / int(row[f"{sizes[0]:,}"]) for row in rows.values()]
    for row, ratio in zip(rows.values(), grown, strict=True):
        row["times"] = ratio
    report.table(f"instructions of one operation by waiters: {shape.name}", list(rows.values()))
    return max(grown)


def main() -> None:
    """Count, and say whether the bar holds."""
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    names = [shape.name for shape in SHAPES]
    parser.add_argument("--shapes", nargs="+", choices=names, default=names)
    given = parser.parse_args()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        print(f"not counted: {' and '.join(missing)} of valgrind are not installed")
        return
    report, sizes = Report(given.json), sorted(given.sizes)
    most = max(
        asyncio.run(counts(given.server, report, shape, sizes))
        for shape in SHAPES
        if shape.name in given.shapes
    )
    bar = math.log(sizes[-1]) / math.log(sizes[0])
    holds = "holds" if most <= bar else "DOES NOT HOLD"
    print(f"\nat most {most:.2f} times as many from {sizes[0]:,} to {sizes[-1]:,} waiters;")
    print(f"log n allows {bar:.2f}: the bar {holds}")
    report.close()
    sys.exit(most > bar)


if __name__ == "__main__":
    main()
