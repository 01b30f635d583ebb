"""Runs contestants by turns and adds up the CPU that a call costs, wherever it is spent."""

import contextlib
import json
import os
import re
import statistics
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from harness import Store, cpu_of, say

HERE = Path(__file__).parent
US, MS = 1e6, 1e3
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A contestant: where its code is, what it talks to, and at which widths it runs.

    `serves` are the ids of processes whose CPU counts too.
    """

    name: str
    python: Path
    module: str
    contestant: str
    url: str
    serves: tuple[int, ...] = ()
    widths: frozenset[int] | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One run: calls a second, seconds of latency, microseconds of CPU for each call."""

    rate: float
    p50: float
    p95: float
    p99: float
    client: float
    service: float
    store: float
    failed: int
    failure: str

    @property
    def total(self) -> float:
        """Microseconds of CPU of all processes."""
        return self.client + self.service + self.store


class Contestant:
    """A process that calls."""

    def __init__(self, case: Case, process: "subprocess.Popen[str]") -> None:
        self.case, self._process = case, process

    def heard(self) -> str:
        """The next line that is meant for us. Raises RuntimeError when there is none."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("=>"):
                return line[2:].strip()
        raise RuntimeError(f"{self.case.name} has ended")

    def begin(self, order: dict[str, float]) -> None:
        """Let it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """What came of it."""
        found: dict[str, Any] = json.loads(self.heard())
        return found

    def run(self, store: Store, order: dict[str, float]) -> Sample:
        """One run, over an empty store."""
        store.redis.flushdb()
        before = (store.cpu(), sum(map(cpu_of, self.case.serves)))
        self.begin(order)
        found = self.end()
        after = (store.cpu(), sum(map(cpu_of, self.case.serves)))
        count = max(1, found["count"])
        return Sample(
            rate=found["count"] / found["elapsed"],
            p50=found["p50"],
            p95=found["p95"],
            p99=found["p99"],
            client=found["cpu"] / count * US,
            service=(after[1] - before[1]) / count * US,
            store=(after[0] - before[0]) / count * US,
            failed=found["failed"],
            failure=found["failure"],
        )


@contextlib.contextmanager
def started(cases: Sequence[Case]) -> Iterator[list[Contestant]]:
    """The processes of *cases*; those that cannot start are left out, with a word why."""
    with contextlib.ExitStack() as stack:
        them = [stack.enter_context(_started(case)) for case in cases]
        ready = []
        for each in them:
            try:
                each.heard()
            except RuntimeError as error:
                say(f"left out: {error}")
            else:
                ready.append(each)
        yield ready


@contextlib.contextmanager
def _started(case: Case) -> Iterator[Contestant]:
    command = [str(case.python), str(HERE / "contestant.py")]
    command += [case.module, case.contestant, case.url]
    whole = os.environ | OFFLINE  # noqa: TID251  # to be handed on, not read
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=whole
    ) as process:
        assert process.stdin is not None
        try:
            yield Contestant(case, process)
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


Field = dict[tuple[str, int], list[Sample]]


def by_turns(
    them: Sequence[Contestant],
    store: Store,
    widths: Sequence[int],
    *,
    seconds: float,
    rounds: int,
    aside: Callable[[], None] = lambda: None,
) -> Field:
    """Samples by name and width: every contestant in every round, at every width.

    *aside* is done once in each round.
    """
    found: Field = defaultdict(list)
    for each in them:
        each.run(store, {"width": 8, "seconds": 0.3})
    for round_ in range(rounds):
        say(f"round {round_ + 1} of {rounds}")
        aside()
        for width in widths:
            for each in them:
                if each.case.widths is None or width in each.case.widths:
                    sample = each.run(store, {"width": width, "seconds": seconds})
                    found[each.case.name, width].append(sample)
    return found


def at_a_rate(
    them: Sequence[Contestant], store: Store, rate: float, *, seconds: float, rounds: int
) -> dict[str, list[Sample]]:
    """Samples by name: calls that come by chance, *rate* of them a second."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for each in them:
        each.run(store, {"width": 8, "seconds": 0.3})
    for round_ in range(rounds):
        say(f"round {round_ + 1} of {rounds}")
        for each in them:
            found[each.case.name].append(each.run(store, {"rate": rate, "seconds": seconds}))
    return found


def median(samples: Sequence[Sample], of: str) -> float:
    """The median of one figure."""
    return statistics.median(getattr(sample, of) for sample in samples)


def ratios(ones: Sequence[Sample], others: Sequence[Sample], of: str) -> list[float]:
    """One over the other, within each round, from the least."""
    pairs = zip(ones, others, strict=True)
    return sorted(getattr(one, of) / (getattr(other, of) or 1e-9) for one, other in pairs)


def spread(values: Sequence[float]) -> str:
    """`median (least-most)`."""
    if not values:
        return ""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


@contextlib.contextmanager
def app(
    python: Path, name: str, store_url: str, *, factory: bool = True
) -> Iterator[tuple[str, int]]:
    """An application of apps.py under uvicorn: where it listens, and the id of its process."""
    command = [str(python), "-m", "uvicorn", f"apps:{name}", "--app-dir", str(HERE), "--port", "0"]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    command += ["--factory"] if factory else []
    whole = os.environ | {"STORE": store_url}  # noqa: TID251  # to be handed on, not read
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=whole) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    break
            else:
                raise RuntimeError("".join(lines[-20:]))
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            yield found[1], process.pid
        finally:
            process.terminate()
            process.wait()
