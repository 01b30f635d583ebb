"""The long run of the simulation in tests/simulation: calls, faults, promises that were broken.

    python benchmarks/simulation.py [--calls 10000000] [--workers 2] [--first 0] [--per-seed 1000]
        [--server valkey,redis]

Each server has as many calls, told by stories of --per-seed calls; workers take stories in turn.
The table has, for each server: stories, calls, hours of the world, grants, those of waiters and
those of replicas that decided alone, calls per second of real time, and stories in which a
promise was broken, which are named: `--first SEED --calls 1` tells one again. The second table
has the faults, by kind. Exits 1 when a promise was broken.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import redis
import structlog

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "simulation")]

_CRITICAL = 50
_EVERY = 10.0  # seconds between two lines of progress


def tell(kind: str, seeds: "Queue[Any]", told: "Queue[Any]", per_seed: int) -> None:
    """Tell the stories of *seeds* on a server of this process, until None."""
    from story import story  # noqa: PLC0415  # on the path since a moment ago
    from tests_support.scripts import scripts  # noqa: PLC0415
    from tests_support.servers import BINARIES, Server  # noqa: PLC0415

    from limiter_service.simulation.virtual_time import run  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_CRITICAL))
    binary = BINARIES[kind]
    assert binary is not None
    loaded = scripts()
    with (
        tempfile.TemporaryDirectory() as home,
        Server(binary, Path(home)) as server,
        redis.Redis(unix_socket_path=str(server.socket)) as client,
    ):
        while (seed := seeds.get()) is not None:
            try:
                story_told = run(story(client, seed, loaded, calls=per_seed))
            except Exception as error:  # noqa: BLE001  # told to the one who counts
                told.put((seed, f"{type(error).__name__}: {error}", None, None))
                continue
            counts = Counter(story_told.counts)
            counts["calls"], counts["milliseconds"] = (
                story_told.calls,
                round(story_told.seconds * 1000),
            )
            told.put((seed, None, counts, story_told.faults))


class Run:
    """The stories on one kind of server."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.broken: list[tuple[int, str]] = []
        self.stories, self.seconds = 0, 0.0

    def go(self, calls: int, workers: int, first: int, per_seed: int) -> None:
        """Tell stories until there were so many calls."""
        context = multiprocessing.get_context("spawn")
        seeds, told = context.Queue(), context.Queue()
        crew = [
            context.Process(target=tell, args=(self.kind, seeds, told, per_seed), daemon=True)
            for _ in range(workers)
        ]
        for each in crew:
            each.start()
        began = said = time.monotonic()
        count = -(-calls // per_seed)
        for seed in range(first, first + count):
            seeds.put(seed)
        for _ in crew:
            seeds.put(None)
        for _ in range(count):
            self._take(*told.get())
            if time.monotonic() - said > _EVERY:
                said = time.monotonic()
                done = f"{self.counts['calls']:,} calls in {said - began:.0f} s"
                print(f"{self.kind}: {done}, {len(self.broken)} broken", file=sys.stderr)
        self.seconds = time.monotonic() - began
        for each in crew:
            each.join()

    def _take(self, seed: int, problem: str | None, counts: Any, faults: Any) -> None:
        self.stories += 1
        if problem is not None:
            self.broken.append((seed, problem))
            print(f"{self.kind}: seed {seed}: {problem}", file=sys.stderr)
            return
        self.counts.update(counts)
        self.faults.update(faults)


def table(runs: list[Run]) -> Iterator[str]:
    """Both tables."""
    yield "| server | stories | calls | hours | grants | of waiters | alone | calls/s | broken |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for each in runs:
        counts = each.counts
        yield (
            f"| {each.kind} | {each.stories:,} | {counts['calls']:,} "
            f"| {counts['milliseconds'] / 3.6e6:.1f} | {counts['grants']:,} "
            f"| {counts['waited']:,} | {counts['alone']:,} "
            f"| {counts['calls'] / each.seconds:,.0f} | {len(each.broken)} |"
        )
    yield ""
    yield "| fault | " + " | ".join(each.kind for each in runs) + " |"
    yield "|---|" + "---|" * len(runs)
    for name in sorted({name for each in runs for name in each.faults}):
        yield f"| {name} | " + " | ".join(f"{each.faults[name]:,}" for each in runs) + " |"


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Simulated calls, and the promises.")
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--per-seed", type=int, default=1000)
    parser.add_argument("--server", default="valkey,redis")
    told = parser.parse_args()
    runs = [Run(kind) for kind in told.server.split(",")]
    for each in runs:
        each.go(told.calls, told.workers, told.first, told.per_seed)
    print("\n".join(table(runs)))
    return 1 if any(each.broken for each in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
