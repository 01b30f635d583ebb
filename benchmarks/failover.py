"""What a failover costs: how long nobody is served, and how much is granted twice.

    python benchmarks/failover.py [--callers 16] [--rate 200] [--rounds 3] [--cluster]

A primary, two replicas and three sentinels on loopback (`down-after-milliseconds 500`), or with
--cluster three masters and a replica of the first (`cluster-node-timeout 1000`); a service process
over it with the timeouts that it has by default; callers in this process that take --rate tokens a
second, each asking again with its request id until it is answered. The primary is killed under
load.

gap             the longest time without a grant, seen by the callers
store           the same of the store itself: from the kill until another primary is named
after it        the difference: what the service adds
stuck           callers without a grant afterwards
granted twice   tokens granted in all, minus what the store knows of

as it is        replication is healthy: what asynchronous replication loses by chance
cut off         no replica has heard anything for two seconds before the kill: the worst case
cut, min-replicas   the same with `min-replicas-to-write 1`, `min-replicas-max-lag 1`

--durability replicated has each grant wait for a replica. --on-store-loss closed has nobody served
meanwhile; as it is by default the service goes on with its share, and charges it afterwards.
"""

import argparse
import asyncio
import contextlib
import itertools
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx
from harness import Report, Value, options, say

from client_sdk import Limiter, LimiterOptions
from client_sdk.errors import ServiceUnavailable

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

LIMIT = 10_000_000
_AFTER = 3.0  # seconds of load after the recovery
_CUT = 2.0
_DEFAULTS = {"SLUICEGATE_CONNECT_TIMEOUT": "0.25", "SLUICEGATE_COMMAND_TIMEOUT": "0.5"}


class Stores(Protocol):
    """What is killed."""

    url: str

    def kill(self) -> None:
        """End the primary without a warning."""

    def cut(self) -> None:
        """Let no replica hear anything any more."""

    def named(self) -> bool:
        """Whether another primary is named."""


class Callers:
    """Tasks that take one token after another, at a pace."""

    def __init__(self, url: str, count: int, rate: float) -> None:
        patient = LimiterOptions(timeout=5.0, connect_timeout=5.0, attempts=1)
        self.limiter = Limiter(url, options=patient)
        self.grants: list[tuple[float, int]] = []
        self.lost = 0
        self._pause, self._stop = count / rate, asyncio.Event()
        self._tasks = [asyncio.create_task(self._run(nth)) for nth in range(count)]

    async def _run(self, nth: int) -> None:
        while not self._stop.is_set():
            request_id = uuid.uuid4().hex
            while True:
                try:
                    await self.limiter.acquire("p/m", tokens=1, request_id=request_id)
                    break
                except ServiceUnavailable:
                    self.lost += 1
                    await asyncio.sleep(0.02)
            self.grants.append((time.monotonic(), nth))
            await asyncio.sleep(self._pause)

    async def end(self) -> None:
        """Let everybody finish."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self.limiter.aclose()


async def measure(
    stores: Stores, url: str, given: argparse.Namespace, *, cut: bool
) -> dict[str, Value]:
    """One failover."""
    callers = Callers(url, given.callers, given.rate)
    await asyncio.sleep(2.0)
    before = len(callers.grants)
    if cut:
        await asyncio.to_thread(stores.cut)
        await asyncio.sleep(_CUT)
    stores.kill()
    killed = time.monotonic()
    named = await asyncio.to_thread(_until_named, stores) - killed
    while not any(at > killed + named for at, _ in callers.grants):
        await asyncio.sleep(0.005)
        assert time.monotonic() - killed < 60, "the service does not recover"
    first = min(at for at, _ in callers.grants if at > killed + named / 2)
    await asyncio.sleep(_AFTER)
    served = {nth for at, nth in callers.grants if at >= first}
    await callers.end()
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        view = (await client.get("/v1/resources/p/m")).json()
    times = [at for at, _ in callers.grants]
    gap = max(b - a for a, b in itertools.pairwise(times))
    spent = round(LIMIT - view["limits"][0]["remaining"])
    return {
        "gap, s": gap,
        "store, s": named,
        "after it, s": max(0.0, first - killed - named),
        "refused": callers.lost,
        "stuck": given.callers - len(served),
        "grants": len(times),
        "granted twice": len(times) - spent,
        "of which before the cut": max(0, before - spent) if cut else 0,
    }


def _until_named(stores: Stores) -> float:
    while not stores.named():
        time.sleep(0.01)
    return time.monotonic()


@contextlib.contextmanager
def watched(binary: str, home: Path, minimum: int) -> Iterator[Stores]:
    """Sentinels."""
    from tests_support.sentinels import Watched  # noqa: PLC0415  # once tests/ is in the path

    more = ("--min-replicas-to-write", str(minimum), "--min-replicas-max-lag", "1")
    with Watched(binary, home, *more) as running:
        first = running.ports[0]

        class Sentinels:
            url = running.url

            def kill(self) -> None:
                running.kill()

            def cut(self) -> None:
                running.cut_replication()

            def named(self) -> bool:
                return running.primary != first

        yield Sentinels()


@contextlib.contextmanager
def clustered(binary: str, home: Path, minimum: int) -> Iterator[Stores]:
    """A cluster, whose first master owns the slot of `{p}`."""
    from tests_support.cluster import Nodes, node_of  # noqa: PLC0415  # likewise

    with Nodes(binary, home, replicas=3, timeout=1000) as nodes:
        first = node_of(nodes.ports, "{p}")
        heir = nodes.ports[3 + nodes.ports.index(first)]
        nodes.order(first, "CONFIG", "SET", "min-replicas-to-write", minimum)
        nodes.order(first, "CONFIG", "SET", "min-replicas-max-lag", 1)

        class Cluster:
            url = nodes.url

            def kill(self) -> None:
                nodes.servers[first].kill()
                nodes.order(heir, "CONFIG", "SET", "masterauth", "")

            def cut(self) -> None:
                nodes.order(heir, "CONFIG", "SET", "masterauth", "no such password")
                nodes.order(first, "CLIENT", "KILL", "TYPE", "replica")

            def named(self) -> bool:
                role: Any = nodes.order(heir, "ROLE")
                return bool(role[0] == b"master")

        yield Cluster()


KINDS = (("as it is", 0, False), ("cut off", 0, True), ("cut, min-replicas", 1, True))


def one(kind: tuple[str, int, bool], given: argparse.Namespace) -> dict[str, Value]:
    """Servers, a service, one failover."""
    from tests_support.service import ServiceProcess  # noqa: PLC0415  # likewise

    name, minimum, cut = kind
    start = clustered if given.cluster else watched
    with (
        tempfile.TemporaryDirectory() as path,
        start(given.server, Path(path), minimum) as stores,
    ):
        config = Path(path) / "pools.yaml"
        limit = f"{{name: b, meter: tokens, limit: 1, per: 366d, burst: {LIMIT}}}"
        ways = f"durability: {given.durability}, on_store_loss: {given.mode}"
        pool = f"{{models: {{m: {{limits: [{limit}]}}}}, {ways}}}"
        config.write_text(f"pools: {{p: {pool}}}\n")
        words = ("--config", str(config), "--redis-url", stores.url, "--log-level", "error")
        with ServiceProcess(*words, env=_DEFAULTS) as service:
            found = asyncio.run(measure(stores, service.url, given, cut=cut))
    say(f"{name}: {found['gap, s']:.2f} s without a grant")
    return {"failover": name} | found


def main() -> None:
    """Every kind of failover, several times."""
    parser = options(__doc__)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--rate", type=float, default=200.0, help="tokens a second, of all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--durability", choices=["fast", "replicated"], default="fast")
    modes = ["degrade", "open", "closed"]
    parser.add_argument("--on-store-loss", choices=modes, default="degrade", dest="mode")
    given = parser.parse_args()
    given.server = given.server or shutil.which("redis-server")
    assert given.server, "give a server with --server"
    rows = [one(kind, given) for kind in KINDS for _ in range(given.rounds)]
    report = Report(given.json)
    where = "cluster" if given.cluster else "sentinel"
    report.table(f"{where}, {Path(given.server).name}, {given.rate:g} tokens a second", rows)
    report.close()


if __name__ == "__main__":
    main()
