"""What an outage of a provider costs a fleet: no breaker, one per process, Sluicegate's.

    python benchmarks/outage.py [--scenario errors] [--workers 8] [--seconds 20] [--scale 1]

Worker processes call a simulated provider; it is well, then has an outage of --seconds, then
is well again. All ways to call are compared on the same load, one after the other, with the
same open time; --max-open 300 lets Sluicegate's grow, as it does by default. The peer library
(purgatory) is installed into a virtual environment of its own, thrown away unless --peers names
where to keep it. --scale 0.2 runs five times as fast: all times shrink with it, but not those
that the machine takes.

errors      503 at once
hangs       no answer; callers give up after 2 s
slow        first tokens take 4 s, and streams end well; 2 s is slow, 10 s the callers' patience
drops       streams break off after a few chunks
flapping    10 s of errors, 10 s up, three times as long as --seconds

wasted      calls that were sent in the outage and failed, or were slow
sent        all calls that were sent in it
to open     seconds until a second begins in which the fleet sends a fifth of its calls or less
to recover  seconds from the end of the outage until one begins with nine tenths of them good
surge       most calls in one second after the outage, against the mean before it
goodput     share of the work that was done in the end, over the whole run
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import msgspec
from harness import Report, Value, options, say, services, sluicegate
from harness import store as a_store
from outage_worker import Done, Job, Sent

ROOT = Path(__file__).parents[1]
PEER = "purgatory>=3,<4"
NEEDED = ["httpx", "jiter", "msgspec", "websockets"]
MODES = {"none": "no breaker", "library": "one per process", "sluicegate": "Sluicegate"}
OPEN, BEFORE, AFTER = 5.0, 6.0, 20.0
MODEL = "m"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """An outage; times in seconds, to be scaled."""

    fault: str
    stream: bool = False
    slow: float = 2.0
    patience: float = 2.0
    flaps: float | None = None
    fault_seconds: float | None = None

    def outage(self, scale: float) -> dict[str, object]:
        """As the simulator is told."""
        fault = self.fault
        if self.fault_seconds is not None:
            fault = f"{fault}={self.fault_seconds * scale:g}"
        found: dict[str, object] = {"fault": fault}
        if self.flaps is not None:
            # A period begins with the time that it is up: so it is switched on that much earlier.
            found |= {"period": 2 * self.flaps * scale, "up": self.flaps * scale}
        return found


SCENARIOS = {
    "errors": Scenario(fault="overloaded"),
    "hangs": Scenario(fault="stall-before-headers"),
    "slow": Scenario(fault="slow-first-token", fault_seconds=4.0, stream=True, patience=10.0),
    "drops": Scenario(fault="drop-after-chunks=1..5; reset", stream=True),
    "flapping": Scenario(fault="overloaded", flaps=10.0),
}


def config(scale: float, rate: float, longest: float) -> str:
    """The pool: twice the load as its limit, and the breaker's defaults, scaled, but for the
    longest opening.
    """

    def ms(seconds: float) -> str:
        return f"{seconds * scale * 1000:.0f}ms"

    burst = max(2.0, 2 * rate * scale)
    return f"""
pools:
  bench:
    models:
      {MODEL}:
        limits:
          - {{meter: requests, limit: {2 * rate:.0f}, per: second, burst: {burst:.0f}}}
    breaker:
      window: {ms(60)}
      slow_ttft: {ms(2)}
      open: {ms(OPEN)}
      max_open: {ms(longest)}
      decay: {ms(60)}
      probe_ttl: {ms(10)}
      ramp: {ms(10)}
"""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one fleet did: its calls in order, and when the provider was down."""

    sent: list[Sent]
    work: list[tuple[float, bool]]
    refused: int
    start: float
    down: list[tuple[float, float]]


def figures(run: Run, scale: float, name: str) -> dict[str, Value]:
    """One row."""
    second = scale
    begin, end = run.down[0][0], run.down[-1][1]
    inside = [s for s in run.sent if any(a <= s.at < b for a, b in run.down)]

    def rates(since: float, until: float, calls: Sequence[Sent]) -> Iterator[tuple[float, float]]:
        """Calls per second in each second that begins a tenth of one later."""
        steps = int((until - since) / second * 10)
        for step in range(max(0, steps)):
            at = since + step * second / 10
            yield at, sum(at <= s.at < at + second for s in calls) / second

    usual = sum(run.start + second <= s.at < begin for s in run.sent)
    usual /= begin - run.start - second
    last = run.sent[-1].at - second
    to_open = next((at - begin for at, r in rates(begin, end, run.sent) if r <= usual / 5), None)
    good = [s for s in run.sent if s.good]
    to_recover = next((at - end for at, r in rates(end, last, good) if r >= 0.9 * usual), None)
    surge = max((r for _, r in rates(end, last, run.sent)), default=0.0)
    return {
        "": name,
        "wasted": sum(not s.good for s in inside),
        "sent": len(inside),
        "to open, s": "-" if to_open is None else round(to_open, 2),
        "to recover, s": "-" if to_recover is None else round(to_recover, 2),
        "surge": round(surge / usual, 2),
        "goodput": round(sum(well for _, well in run.work) / len(run.work), 3),
        "refused": run.refused,
    }


class Fleet:
    """Where the workers run, and whom they call."""

    def __init__(
        self, python: Path, provider: str, services: Sequence[str], given: argparse.Namespace
    ) -> None:
        self._python, self._provider, self._services = python, provider, services
        self._given = given

    def run(self, mode: str, scenario: Scenario) -> Run:
        """One way to call, through one outage."""
        given, scale = self._given, self._given.scale
        lasts = given.seconds * scale * (3 if scenario.flaps else 1)
        begins, after = BEFORE * scale, AFTER * scale
        # Without a breaker the provider may be busy for long.
        sim = httpx.Client(base_url=self._provider, timeout=60)
        with contextlib.ExitStack() as stack, sim:
            workers = [stack.enter_context(self._worker()) for _ in range(given.workers)]
            sim.post("/sim/reset").raise_for_status()
            start = time.monotonic() + 0.3
            for number, worker in enumerate(workers):
                job = Job(
                    mode=mode,
                    name=f"worker-{number}",
                    provider=self._provider,
                    service=self._services[number % len(self._services)],
                    resource=f"bench/{MODEL}",
                    start=start,
                    seconds=begins + lasts + after,
                    rate=given.rate / given.workers,
                    slow=scenario.slow * scale,
                    patience=scenario.patience * scale,
                    open=OPEN * scale,
                    scale=scale,
                    stream=scenario.stream,
                )
                assert worker.stdin is not None
                worker.stdin.write(msgspec.json.encode(job).decode() + "\n")
                worker.stdin.flush()
            down = self._outage(sim, scenario, start + begins, lasts)
            said = [each.communicate()[0] for each in workers]
            if any(each.returncode for each in workers):
                raise SystemExit("a worker failed")
            done = [msgspec.json.decode(text, type=Done) for text in said]
        return Run(
            sent=sorted((s for each in done for s in each.sent), key=lambda s: s.at),
            work=[piece for each in done for piece in each.work],
            refused=sum(each.refused for each in done),
            start=start,
            down=down,
        )

    def _outage(
        self, sim: httpx.Client, scenario: Scenario, begin: float, lasts: float
    ) -> list[tuple[float, float]]:
        """Switch the outage on and off; when the provider was down."""
        scale = self._given.scale
        flap = scenario.flaps * scale if scenario.flaps else 0.0
        time.sleep(max(0.0, begin - flap - time.monotonic()))
        on = time.monotonic()
        sim.post("/sim/faults", json={"outages": [scenario.outage(scale)]}).raise_for_status()
        time.sleep(max(0.0, begin + lasts - time.monotonic()))
        sim.delete("/sim/faults").raise_for_status()
        off = time.monotonic()
        if not flap:
            return [(on, off)]
        count = max(1, round((off - on) / (2 * flap)))
        return [(on + (2 * n + 1) * flap, min(off, on + (2 * n + 2) * flap)) for n in range(count)]

    @contextlib.contextmanager
    def _worker(self) -> "Iterator[subprocess.Popen[str]]":
        here = Path(__file__).with_name("outage_worker.py")
        with subprocess.Popen(
            [str(self._python), str(here)],
            env={"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                if process.stdout.readline() != "ready\n":
                    raise SystemExit("a worker did not start")
                yield process
            finally:
                process.kill()


def peers(home: Path) -> Path:
    """The interpreter that has the peer library; installed where it is not."""
    python = home / "bin" / "python"
    if not python.exists():
        say(f"installing {PEER}")
        venv.create(home, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, PEER, *NEEDED], check=True)
    return python


def measure(given: argparse.Namespace, python: Path, report: Report) -> None:
    """Every scenario, every way, on one provider, service and store."""
    pools = config(given.scale, given.rate, given.max_open)
    limits = ["--rpm", "100000000", "--tpm", "1000000000", "--latency", str(0.05 * given.scale)]
    with (
        sluicegate("provider-sim", *limits) as provider,
        a_store(given.server) as where,
        services(where.url, pools, given.replicas) as replicas,
    ):
        fleet = Fleet(python, provider.url, [each.url for each in replicas], given)
        for name in given.scenario or SCENARIOS:
            rows = []
            for mode, title in MODES.items():
                where.redis.flushall()
                say(f"{name}: {title}")
                run = fleet.run(mode, SCENARIOS[name])
                rows.append(figures(run, given.scale, title))
            report.table(f"{name}: {given.workers} workers, {given.rate:g} pieces of work/s", rows)


def main() -> int:
    """Measure, or say what is wrong with the options."""
    parser = options(__doc__)
    parser.add_argument(
        "--scenario", action="append", choices=list(SCENARIOS), help="default: all; may repeat"
    )
    parser.add_argument("--workers", type=int, default=8, help="processes (default 8)")
    parser.add_argument("--replicas", type=int, default=1, help="of the service (default 1)")
    parser.add_argument("--rate", type=float, default=40.0, help="pieces of work per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the outage (default 20)")
    parser.add_argument(
        "--max-open", type=float, default=OPEN, help="longest opening of Sluicegate (default 5)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of all times (default 1)")
    parser.add_argument("--peers", type=Path, help="directory of the peer's environment to keep")
    given = parser.parse_args()
    for name in ("workers", "replicas", "rate", "seconds", "scale"):
        if getattr(given, name) <= 0:
            parser.error(f"--{name} must be more than 0")
    if given.max_open < OPEN:
        parser.error(f"--max-open must be at least {OPEN:g}, as the first opening is")
    report = Report(given.json)
    with contextlib.ExitStack() as stack:
        home = given.peers or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        measure(given, peers(home), report)
    report.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
