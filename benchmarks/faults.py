"""What is left of the promises when real servers, services and workers are broken under load.

    python benchmarks/faults.py [--topology standalone|sentinel|cluster] [--kind valkey|redis]
                                [--calls 100000] [--seed 1] [--tasks 16] [--durability replicated]
    python benchmarks/faults.py --lost-replies 10000
    python benchmarks/faults.py --cancellations 100000

Two service processes over the store, two worker processes that acquire, renew and settle through
the SDK (one over a channel, one over HTTP), and every fault of the list in an order of the seed's,
again and again, until so many calls are made. The scripts write down what they do, workers what
they asked and were told; afterwards an offline checker compares them with what the store says
(`tests/tests_support/trial`, and `tests_support.ledger`, which checks the simulation too).

times           how often the fault was done
calls           calls that were under way during it, or began within a second of it
violations      promises that were not kept, from the fault on until the next one; each is told,
                with the seed. Their evidence is kept under --evidence, and --judge looks again
gap             the longest time in which nobody was granted anything, seconds
back            the longest time from the end of a fault until somebody was
lost            changes of the store that a failover has lost; of them grants acknowledged, and
                the tokens of all lost grants: what may be granted again. Nothing else may
forgotten       reports on leases of which a failover has lost that their callers had fetched them
                from the queue: they are told that the lease is not known
outdated        reports that were told, by one who did not know that another is primary, that the
                lease is not known
grouped         changes that were decided together with others, in one call
blocks, handed  blocks that were lent, calls that workers have handed out of them; called back are
                those that came back while somebody waited
alone           grants of services without their store; uncharged are those whose service was
                killed before it could say so
leaps           seconds that the store's clock went forward, in which limits refill
debited twice   requests with more than one debit
late            the longest that a caller waited beyond its `max_wait`, seconds
connections     of callers, left at the services when all callers have ended; and those of the
                services at the store

A storm has --cancellations calls of one limiter over a channel, and as many over HTTP,
where calls wait for those that travel with them; two thirds are cancelled at a random moment.
`mixed up` are answers of another request, `leases` and `waiting` what is left at the store at once,
`off` the difference between the books and the level.

A --plot says what the calls are: `ordinary` ones; `groups` that are decided together; `blocks`
that workers hand out; `degrade` and `open` are what services do without their store (otherwise
nothing). --faults names some of the faults.

With --durability replicated a grant counts once a replica has it; where that is the one that is
promoted, as in a cluster here, none that a caller was told of may be lost.

Bars: no violation, nobody debited twice, nothing mixed up, nothing left.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import redis
from harness import Report, Value, options, say

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

if TYPE_CHECKING:
    from tests_support.trial.scene import Outcome


@contextlib.contextmanager
def stores(given: argparse.Namespace, home: Path) -> Iterator[Any]:
    """The store of a topology."""
    from tests_support.servers import BINARIES  # noqa: PLC0415  # once tests/ is in the path
    from tests_support.trial.stores import (  # noqa: PLC0415  # likewise
        Clustered,
        Sentinels,
        Standalone,
    )

    binary = BINARIES[given.kind]
    assert binary, f"no {given.kind}-server is installed"
    made: Standalone | Sentinels | Clustered
    if given.topology == "sentinel":
        made = Sentinels(binary, home)
    elif given.topology == "cluster":
        made = Clustered(binary, home, replicas=3)
    else:
        made = Standalone(binary, home, 2)
    with made:
        if not made.clocks.movable:
            say("no C compiler: the store's clock stays")
        yield made


def rows(
    outcome: "Outcome", where: str, seed: int
) -> tuple[list[dict[str, Value]], dict[str, Value]]:
    """The faults, and what they have come to."""
    found, gaps, back = outcome.found, outcome.gaps(), outcome.back()
    faults: list[dict[str, Value]] = [
        {
            "fault": name,
            "topology": where,
            "times": times,
            "calls": outcome.calls_of(name),
            "violations": outcome.during(name, found.times),
            "lost": outcome.during(name, found.losses),
            "gap, s": gaps[name],
            "back, s": back[name],
        }
        for name, times in sorted(outcome.faults.items())
    ]
    for text in found.violations:
        say(f"VIOLATION (seed {seed}): {text}")
    whole: dict[str, Value] = {
        "topology": where,
        "calls": found.calls,
        "faults": len(outcome.befell),
        "violations": len(found.violations),
        "debited twice": found.twice,
        "grants": found.grants,
        "settles": found.settles,
        "unknown": found.unknown,
        "told again": found.repeats,
        "lost": found.lost,
        "acknowledged": found.lost_acknowledged,
        "lost tokens": found.lost_tokens,
        "forgotten": found.forgotten,
        "outdated": found.outdated,
        "grouped": found.grouped,
        "blocks": found.blocks,
        "handed": found.handed,
        "called back": found.called_back,
        "alone": found.alone,
        "uncharged": found.uncharged,
        "leaps, s": found.leaps,
        "late, s": outcome.late(),
        "connections": outcome.connections,
        "at the store": outcome.at_store,
    }
    return faults, whole


def break_things(given: argparse.Namespace, report: Report) -> bool:
    """One trial; whether it has kept every bar."""
    from tests_support.trial.scene import lost_replies, trial  # noqa: PLC0415  # likewise

    where = f"{given.topology}, {given.kind}, {given.durability}, {given.plot}"
    with tempfile.TemporaryDirectory() as path:
        home = Path(path)
        for name in ("store", "work"):
            (home / name).mkdir()
        with kept(given, home) as keep, stores(given, home / "store") as store:
            shared: dict[str, Any] = {"seed": given.seed, "tasks": given.tasks, "say": say}
            if given.lost_replies:
                outcome = lost_replies(store, home / "work", lost=given.lost_replies, **shared)
            else:
                shared |= {"calls": given.calls, "durability": given.durability}
                shared |= {"plot": given.plot, "only": given.faults}
                outcome = trial(store, home / "work", **shared)
            if outcome.found.violations:
                keep()
    faults, whole = rows(outcome, where, given.seed)
    report.table(f"faults: {where}, seed {given.seed}", faults)
    report.table("what they came to", [whole])
    return sound(outcome)


def sound(outcome: "Outcome") -> bool:
    """Whether every bar is kept."""
    return not (outcome.found.violations or outcome.found.twice or outcome.connections)


@contextlib.contextmanager
def kept(given: argparse.Namespace, home: Path) -> Iterator[Callable[[], None]]:
    """Gives what keeps the evidence of a trial under --evidence; a trial that breaks off keeps
    its own.
    """
    from tests_support.trial import archive  # noqa: PLC0415  # likewise

    at = time.strftime("%Y-%m-%d-%H%M%S")
    target = given.evidence / f"{at}-{given.topology}-{given.kind}-{given.plot}-{given.seed}"

    def keep() -> None:
        archive.keep(home / "store", home / "work", target)
        say(f"the evidence is in {target}: judge it again with --judge {target}")

    try:
        yield keep
    except BaseException:
        keep()
        raise


def judge_again(home: Path) -> bool:
    """Look once more at evidence that was kept."""
    from tests_support.trial import archive  # noqa: PLC0415  # likewise
    from tests_support.trial.verdict import judge  # noqa: PLC0415  # likewise

    found = judge(archive.read(home))
    for text in found.violations:
        say(f"VIOLATION: {text}")
    say(f"{found.calls:,} calls, {len(found.violations)} violations")
    return not found.violations


async def left(url: str, spent: int) -> float:
    """The difference between the books and what the service says."""
    from tests_support.trial.storm import LIMIT  # noqa: PLC0415  # likewise

    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        view = (await client.get("/v1/resources/p/open")).json()
    return float(LIMIT - view["limits"][0]["remaining"]) - spent


def cancel(given: argparse.Namespace, report: Report) -> bool:
    """A storm over each way to the service; whether nothing is left of it."""
    from tests_support.servers import BINARIES, Server  # noqa: PLC0415  # likewise
    from tests_support.service import ServiceProcess  # noqa: PLC0415  # likewise
    from tests_support.trial.scene import established  # noqa: PLC0415  # likewise
    from tests_support.trial.storm import (  # noqa: PLC0415  # likewise
        POOLS,
        misbooked,
        storm,
        unsettled,
        waiting,
    )

    table: list[dict[str, Value]] = []
    for channel, calls in (("only", given.cancellations), ("off", given.cancellations)):
        with tempfile.TemporaryDirectory() as path:
            home = Path(path)
            config = home / "pools.yaml"
            config.write_text(POOLS)
            with Server(BINARIES[given.kind] or "", home) as store:
                words = ("--config", str(config), "--redis-url", store.url)
                with ServiceProcess(*words, "--log-level", "error") as service:
                    began = time.monotonic()
                    storming = storm(
                        service.url,
                        calls,
                        given.seed,
                        channel=channel,
                        say=lambda calls: say(f"{calls:,} calls"),
                    )
                    found = asyncio.run(storming)
                    took = time.monotonic() - began
                    with redis.Redis(unix_socket_path=str(store.socket)) as orders:
                        table.append(
                            {
                                "way": "channel" if channel == "only" else "HTTP",
                                "calls": found.calls,
                                "cancelled": found.ended["acquire cancelled"]
                                + found.ended["settle cancelled"],
                                "mixed up": len(found.mixed_up),
                                "leases": unsettled(orders),
                                "waiting": waiting(orders),
                                "off": round(asyncio.run(left(service.url, found.spent)), 2),
                                "connections": established(int(service.url.rpartition(":")[2])),
                                "at the store": len(orders.client_list()) - 1,
                                "took, s": took,
                            }
                        )
                        wrong = found.mixed_up[:5] + misbooked(orders, found)[:5]
            for text in wrong:
                say(f"VIOLATION (seed {given.seed}): {text}")
    report.table(f"cancelled calls, {given.kind}, seed {given.seed}", table)
    bars = ("mixed up", "leases", "waiting", "off", "connections")
    return not any(row[name] for row in table for name in bars)


def main() -> None:
    """One topology, lost replies, or a storm."""
    parser = options(__doc__)
    parser.add_argument("--topology", default="standalone",
                        choices=["standalone", "sentinel", "cluster"])  # fmt: skip
    parser.add_argument("--kind", default="valkey", choices=["valkey", "redis"])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=16, help="callers of each worker process")
    parser.add_argument("--durability", choices=["fast", "replicated"], default="fast")
    parser.add_argument("--plot", default="ordinary",
                        choices=["ordinary", "groups", "blocks", "degrade", "open"])  # fmt: skip
    parser.add_argument("--faults", type=lambda text: text.split(","), default=[],
                        metavar="NAME,NAME", help="only these")  # fmt: skip
    parser.add_argument("--lost-replies", type=int, default=0)
    parser.add_argument("--cancellations", type=int, default=0)
    parser.add_argument("--evidence", type=Path, default=Path("build/faults"), metavar="DIRECTORY",
                        help="where the evidence of a violation is kept")  # fmt: skip
    parser.add_argument("--judge", type=Path, metavar="DIRECTORY",
                        help="judge the evidence that was kept there again")  # fmt: skip
    given = parser.parse_args()
    if given.judge:
        sys.exit(0 if judge_again(given.judge) else 1)
    report = Report(given.json)
    well = cancel(given, report) if given.cancellations else break_things(given, report)
    report.close()
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
