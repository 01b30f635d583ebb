"""The simulation in tests/simulation at length: calls, faults, promises that were broken.

    python benchmarks/simulation.py [--calls 10000000] [--processes 1] [--first 0]
        [--per-seed 1000] [--server valkey,redis] [--seconds S] [--json FILE] [--keep DIRECTORY]

The calls are told by stories of --per-seed calls, which each take a seed; servers take turns, so
that each has as many. Without --seconds all calls are told, with it no story begins after S
seconds. It needs nobody: progress is on stderr, --json is written anew with each line of it, and
of a story in which a promise is broken the command that tells it again is printed at once, and
what has happened is kept in a file.

The first table has, for each server: stories, calls, hours of the world, grants, those of waiters
and of replicas that decided alone, calls that a group decided, calls that were handed out of
blocks, calls per second of real time, and stories in which a promise was broken. The second table
has the faults, by kind. Exits 1 when a promise was broken.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import redis
import structlog

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "simulation")]

_CRITICAL = 50
_EVERY = 10.0  # seconds between two lines of progress, which become fewer in a long run
_SELDOM = 300.0
_SHOWN = ("grants", "waited", "alone", "grouped", "handed")


def tell(kind: str, orders: Connection, per_seed: int) -> None:
    """Tell the story of each seed that comes, on a server of this process, until None."""
    from story import story  # noqa: PLC0415  # on the path since a moment ago
    from tests_support.scripts import scripts  # noqa: PLC0415
    from tests_support.servers import BINARIES, Server  # noqa: PLC0415

    from limiter_service.simulation.virtual_time import run  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_CRITICAL))
    binary = BINARIES[kind]
    assert binary is not None, f"{kind} is not installed"
    loaded = scripts()
    with (
        tempfile.TemporaryDirectory() as home,
        Server(binary, Path(home)) as server,
        redis.Redis(unix_socket_path=str(server.socket)) as client,
    ):
        while (seed := orders.recv()) is not None:
            try:
                told = run(story(client, seed, loaded, calls=per_seed))
            except Exception as error:  # noqa: BLE001  # told to the one who counts
                evidence = "".join(traceback.format_exception(error))
                problem = f"{type(error).__name__}: {error}"
                orders.send((seed, problem, evidence, {}))
                continue
            counts = Counter(told.counts)
            counts["calls"], counts["milliseconds"] = told.calls, round(told.seconds * 1000)
            orders.send((seed, None, counts, told.faults))


class Run:
    """The stories on one kind of server."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.broken: dict[int, str] = {}
        self.stories, self.seconds = 0, 0.0

    def figures(self) -> dict[str, Any]:
        """What has come of it."""
        return {
            "server": self.kind,
            "stories": self.stories,
            "calls": self.counts["calls"],
            "hours": round(self.counts["milliseconds"] / 3.6e6, 2),
            **{name: self.counts[name] for name in _SHOWN},
            "seconds": round(self.seconds, 1),
            "faults": dict(sorted(self.faults.items())),
            "broken": {str(seed): problem for seed, problem in self.broken.items()},
        }


class Telling:
    """All of it: who tells which story, and what came of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.runs = [Run(kind) for kind in options.server.split(",")]
        self._seed = options.first
        stories = -(-options.calls // options.per_seed)
        self._last = options.first + -(-stories // len(self.runs))
        self._began = self._said = time.monotonic()
        self._busy: dict[Connection, tuple[Run, float]] = {}

    def go(self) -> None:
        """Tell everything; of each server every process has its own."""
        context = multiprocessing.get_context("spawn")
        crew = []
        idle: list[dict[str, Connection]] = []
        for _ in range(self._options.processes):
            ways = {}
            for run in self.runs:
                mine, theirs = context.Pipe()
                arguments = (run.kind, theirs, self._options.per_seed)
                process = context.Process(target=tell, args=arguments, daemon=True)
                process.start()
                theirs.close()
                crew.append((process, mine))
                ways[run.kind] = mine
            idle.append(ways)
        of = {way: ways for ways in idle for way in ways.values()}
        pairs = self._pairs()
        for ways in idle:
            self._begin(ways, pairs)
        while self._busy:
            for way in wait(list(self._busy)):
                assert isinstance(way, Connection)
                self._take(way)
                self._begin(of[way], pairs)
                self._say()
        self._say(last=True)
        for process, way in crew:
            way.send(None)
            process.join()

    def _pairs(self) -> Iterator[tuple[int, Run]]:
        options = self._options
        for seed in range(options.first, self._last):
            for run in self.runs:
                late = time.monotonic() - self._began
                if options.seconds is not None and late > options.seconds:
                    return
                yield seed, run

    def _begin(self, ways: dict[str, Connection], pairs: Iterator[tuple[int, Run]]) -> None:
        order = next(pairs, None)
        if order is not None:
            seed, run = order
            ways[run.kind].send(seed)
            self._busy[ways[run.kind]] = run, time.monotonic()

    def _take(self, way: Connection) -> None:
        run, began = self._busy.pop(way)
        seed, problem, counts, faults = way.recv()
        run.stories += 1
        run.seconds += (time.monotonic() - began) / self._options.processes
        if problem is None:
            run.counts.update(counts)
            run.faults.update(faults)
            return
        run.broken[seed] = problem
        file = self._options.keep / f"{run.kind}-{seed}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        again = (
            f"python benchmarks/simulation.py --server {run.kind} --first {seed} "
            f"--per-seed {self._options.per_seed} --calls 1"
        )
        file.write_text(f"{again}\n\n{counts}")
        print(f"broken: {problem}\n  again: {again}\n  more: {file}", file=sys.stderr, flush=True)

    def _say(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._said < min(_SELDOM, _EVERY + (now - self._began) / 20) and not last:
            return
        self._said, seconds = now, now - self._began
        calls = sum(run.counts["calls"] for run in self.runs)
        broken = sum(len(run.broken) for run in self.runs)
        left = max(0, self._options.calls - calls) * seconds / max(1, calls)
        print(
            f"{calls:,} calls in {seconds:,.0f} s, {calls / seconds:,.0f} a second, "
            f"{left:,.0f} s to go, {broken} broken",
            file=sys.stderr,
            flush=True,
        )
        if self._options.json is not None:
            told = {"seconds": round(seconds, 1), "runs": [run.figures() for run in self.runs]}
            self._options.json.write_text(json.dumps(told, indent=1) + "\n")


def table(runs: list[Run]) -> Iterator[str]:
    """Both tables."""
    yield (
        "| server | stories | calls | hours | grants | of waiters | alone | in groups "
        "| of blocks | calls/s | broken |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for each in runs:
        counts = each.counts
        shown = " | ".join(f"{counts[name]:,}" for name in _SHOWN)
        yield (
            f"| {each.kind} | {each.stories:,} | {counts['calls']:,} "
            f"| {counts['milliseconds'] / 3.6e6:.1f} | {shown} "
            f"| {counts['calls'] / max(each.seconds, 0.001):,.0f} | {len(each.broken)} |"
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
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--per-seed", type=int, default=1000)
    parser.add_argument("--server", default="valkey,redis")
    parser.add_argument("--seconds", type=float, help="begin no story after so long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "simulation")
    telling = Telling(parser.parse_args())
    telling.go()
    print("\n".join(table(telling.runs)))
    return 1 if any(each.broken for each in telling.runs) else 0


if __name__ == "__main__":
    sys.exit(main())
