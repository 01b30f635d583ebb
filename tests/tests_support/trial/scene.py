"""A trial: services and workers over a store, faults by a seed, and what is left afterwards."""

import asyncio
import bisect
import contextlib
import itertools
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec
import redis

from client_sdk import Lease, Limiter, LimiterOptions
from limiter_wire import Acquire, Settle
from tests_support.service import ServiceProcess
from tests_support.trial import archive, diary, journal, rules, verdict
from tests_support.trial.archive import Facts
from tests_support.trial.diary import Diary
from tests_support.trial.evidence import Evidence, Found
from tests_support.trial.losing import Losing
from tests_support.trial.moments import moment
from tests_support.trial.stores import LATE, LOSS, Fault, Standalone, Stores, stopped
from tests_support.trial.worker import Plan
from tests_support.waiting import until, wait_until

_STUCK = 120.0  # seconds without a grant, on however busy a machine
_WAITERS = 5
_HANDED = f'"lease":"{rules.BLOCK}'.encode()
_ENOUGH = 5  # of what a trial is about
_TIMEOUTS = {"SLUICEGATE_CONNECT_TIMEOUT": "0.25", "SLUICEGATE_COMMAND_TIMEOUT": "0.5"}

Say = Callable[[str], None]


class Befell(msgspec.Struct, frozen=True):
    """A fault, from when to when by the host's clock."""

    name: str
    began: float
    ended: float


class Outcome(msgspec.Struct, kw_only=True):
    """What a trial came to. `evidence` can be judged again."""

    found: Found
    evidence: Evidence
    befell: list[Befell]
    connections: int = 0
    at_store: int = 0

    @property
    def faults(self) -> Counter[str]:
        """How often each was done."""
        return Counter(each.name for each in self.befell)

    def calls_of(self, name: str) -> int:
        """Calls that were under way during a fault, or began within a second of it."""
        calls = self.evidence.calls  # by their beginning
        begun = [call.begin.at for call in calls]
        found: set[int] = set()
        for each in (each for each in self.befell if each.name == name):
            first = bisect.bisect_left(begun, each.began - _STUCK)
            last = bisect.bisect_right(begun, each.ended + 1.0)
            found.update(n for n in range(first, last) if calls[n].until >= each.began)
        return len(found)

    def late(self) -> float:
        """The longest that a call took beyond the time that it would wait."""
        return max(
            (
                call.until - call.begin.at - (call.begin.acquire.max_wait or 0.0)
                for call in self.evidence.calls
                if call.begin.acquire is not None and call.end is not None
            ),
            default=0.0,
        )

    def gaps(self) -> dict[str, float]:
        """The longest time in which nobody was granted anything, around each fault."""
        times, longest = self._grants(), dict[str, float]()
        for each in self.befell:
            first = max(0, bisect.bisect_left(times, each.began) - 1)
            last = bisect.bisect_right(times, each.ended) + 1
            gap = max((b - a for a, b in itertools.pairwise(times[first:last])), default=0.0)
            longest[each.name] = max(gap, longest.get(each.name, 0.0))
        return longest

    def back(self) -> dict[str, float]:
        """The longest time from the end of each fault until somebody was granted something."""
        times, longest = self._grants(), dict[str, float]()
        for each in self.befell:
            after = bisect.bisect_right(times, each.ended)
            took = times[after] - each.ended if after < len(times) else 0.0
            longest[each.name] = max(took, longest.get(each.name, 0.0))
        return longest

    def during(self, name: str, times: Sequence[float]) -> int:
        """How many of these times fall into a fault of that name, or come before the next one."""
        ends = [each.began for each in self.befell[1:]] + [float("inf")]
        return sum(
            each.began <= at < end
            for at in times
            for each, end in zip(self.befell, ends, strict=True)
            if each.name == name
        )

    def _grants(self) -> list[float]:
        return sorted(
            call.until
            for call in self.evidence.calls
            if call.told == diary.GRANTED and call.begin.acquire is not None
        )


class Scene:
    """Services behind one address, workers that call it; a context manager."""

    def __init__(
        self,
        stores: Stores,
        home: Path,
        luck: Random,
        *,
        services: int = 2,
        workers: int = 2,
        tasks: int = 8,
        slips: Mapping[str, str] | None = None,
        durability: str = "fast",
        plot: str = "ordinary",
    ) -> None:
        self.stores, self._home, self._luck = stores, home, luck
        (home / "service").mkdir()
        self._package = journal.installed(home / "service", slips)
        self._config = home / "pools.yaml"
        self._numbers, self._tasks = (services, workers), tasks
        self._scale = max(1, workers * tasks // rules.CALLERS)
        self._plot = plot
        self._config.write_text(rules.text(stores.pool, plot, durability, self._scale))
        self._services: list[ServiceProcess] = []
        self._workers: dict[str, subprocess.Popen[str]] = {}
        self.killed: set[str] = set()
        self.deaths = False
        self.diaries: list[Path] = []
        self.front = Losing([], Random(0))
        self._stack = contextlib.ExitStack()
        self._read: dict[Path, int] = {}
        self.calls = self.grants = 0
        self._handed = self._together = self._lone = 0

    def __enter__(self) -> "Scene":
        services, workers = self._numbers
        with contextlib.ExitStack() as stack:  # also where nothing comes of it
            stack.callback(self._end)
            stack.enter_context(self.front)
            with ThreadPoolExecutor() as side_by_side:
                self._services = list(side_by_side.map(self._service, range(services)))
            self._route()
            for _ in range(workers):
                self._hire()
            self.until_more(20)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        for process in self._workers.values():
            process.kill()
            process.communicate()
        for service in self._services:
            service.stop(signal.SIGKILL)

    def _service(self, nth: int) -> ServiceProcess:
        # The package with the journal comes first, whatever the current directory is.
        env = {"PYTHONPATH": str(self._package), "PYTHONSAFEPATH": "1"} | _TIMEOUTS
        env["TRIAL_JOURNAL"] = str(self.stores.journal)
        words = ("--config", str(self._config), "--redis-url", self.stores.url(nth))
        with (self._home / f"service-{nth}.log").open("a") as log:
            running = ServiceProcess(*words, "--log-level", "warning", env=env, stderr=log)
            return running.__enter__()

    def _route(self) -> None:
        self.front.targets = [int(each.url.rpartition(":")[2]) for each in self._services]

    def _hire(self) -> None:
        nth = len(self.diaries)
        path = self._home / f"w{nth}.diary"
        path.touch()  # it may be killed before it begins
        self.diaries.append(path)
        plan = Plan(
            url=self.front.url,
            name=path.stem,
            seed=self._luck.randrange(1_000_000),
            diary=str(path),
            pool=self.stores.pool,
            plot=self._plot,
            tasks=self._tasks,
            channel="off" if nth % 2 else "auto",
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "tests_support.trial.worker"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(plan).decode() + "\n")
        process.stdin.flush()
        self._workers[plan.name] = process

    # What befalls services, workers, and the way between them.

    def faults(self) -> dict[str, Fault]:
        """Those of the store come with it."""
        return {
            "way to the service cut": self._cut,
            "answers of the service lost": self._lose_answers,
            "answers of the service late": self._be_late,
            "partition from the service": self._part,
            "service stopped": self._stop_service,
            "service killed": lambda luck: self._replace(luck, signal.SIGKILL),
            "service replaced": lambda luck: self._replace(luck, signal.SIGTERM),
            "worker killed": self._kill_worker,
        }

    def _cut(self, luck: Random) -> None:
        for _ in range(5):
            self.front.cut()
            moment(luck, 0.15)

    def _lose_answers(self, luck: Random) -> None:
        for _ in range(3):
            self.front.keep_answers()
            moment(luck, 0.3)
            self.front.cut()
            self.front.flow()

    def _be_late(self, luck: Random) -> None:
        self.front.late = LATE
        moment(luck, 1.5)
        self.front.late = 0.0

    def _part(self, luck: Random) -> None:
        self.front.stall()
        moment(luck, 1.5)
        self.front.flow()

    def _stop_service(self, luck: Random) -> None:
        process = luck.choice(self._services).process
        assert process is not None
        with stopped(process.pid):
            moment(luck, 1.5)

    def _replace(self, luck: Random, how: signal.Signals) -> None:
        nth, self.deaths = luck.randrange(len(self._services)), True
        self._services[nth].stop(how)
        self._services[nth] = self._service(nth)
        self._route()

    def _kill_worker(self, luck: Random) -> None:
        name = luck.choice(sorted(self._workers))
        process = self._workers.pop(name)
        self.killed.add(name)
        process.kill()
        process.communicate()
        self._hire()

    # How it goes on.

    def until_more(self, grants: int) -> None:
        """Return when so many more calls have been granted."""
        self._look()
        goal = self.grants + grants

        def reached() -> bool:
            self._look()
            for name, process in self._workers.items():
                assert process.poll() is None, f"{name} has ended"
            return self.grants >= goal

        wait_until(reached, "nobody is granted anything any more", _STUCK)

    def _look(self) -> None:
        for path in self.diaries:
            data = self._news(path)
            self.calls += data.count(b'"told":')
            self.grants += data.count(b'"told":"granted"')
            self._handed += data.count(_HANDED)
        data = self._news(self.stores.journal)
        self._together += data.count(b" together ")
        self._lone += data.count(b" alone ")

    def _news(self, path: Path) -> bytes:
        """What was written since the last look."""
        if not path.exists():
            return b""
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            data = file.read()
            self._read[path] = file.tell()
        return data

    def shown(self) -> bool:
        """Whether what the plot is about has come to pass, on however busy a machine."""
        plot = rules.PLOTS[self._plot]
        return (
            (self._handed >= _ENOUGH or not plot.prefetch)
            and (self._together >= _ENOUGH or not plot.crowds)
            and (self._lone >= _ENOUGH or plot.on_loss == "closed")
        )

    def close_down(self) -> None:
        """Let workers end, and everything that they hold."""
        asyncio.run(self._queue_up())
        for name, process in self._workers.items():
            process.communicate(timeout=_STUCK)
            assert process.returncode == 0, f"{name} ended badly"
        self._workers.clear()
        wait_until(self._quiet, "somebody still waits, or holds a slot", _STUCK)
        wait_until(lambda: not self.connections(), "a connection stays open", _STUCK)

    def evidence(self, *, durable: bool, torn: bool = True) -> Evidence:
        """What is left when all is over."""
        facts = Facts(
            pool=self.stores.pool,
            plot=self._plot,
            scale=self._scale,
            count=self.stores.count(),
            spent=self.spent(),
            left=self._left(),
            killed=sorted(self.killed),
            durable=durable,
            deaths=self.deaths,
            torn=torn,
        )
        archive.note(self._home, facts)
        return archive.evidence(facts, self.stores.journal, self.diaries)

    def outcome(self, evidence: Evidence, befell: list[Befell]) -> Outcome:
        """The verdict, and the connections of callers and services that are left."""
        return Outcome(
            found=verdict.judge(evidence),
            evidence=evidence,
            befell=befell,
            connections=self.connections(),
            at_store=self.stores.connections(),
        )

    def connections(self) -> int:
        """Connections of callers at services."""
        return sum(established(port) for port in self.front.targets if isinstance(port, int))

    def _quiet(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return not self._left()
        return False

    def _left(self) -> list[str]:
        """Who waits, and what is held."""
        levels = self._levels()
        slots = [name for name in ("m1.slots", "one.slot") if name in levels]
        held = [name for name in slots if levels[name][0] != levels[name][1]]
        return [*self.stores.left(), *held]

    async def _queue_up(self) -> None:
        """A slot that one after another waits for and is woken for."""
        path = self._home / "queue.diary"
        self.diaries.append(path)
        # A lease outlives the longest pause of a busy machine.
        asked = Acquire(resource=f"{self.stores.pool}/one", tokens=1, ttl=_STUCK)
        book = Diary(path)
        options = LimiterOptions(timeout=20.0, connect_timeout=20.0, on_service_loss="closed")
        async with Limiter(self.front.url, options=options) as limiter:

            async def take(nth: int) -> None:
                mine = msgspec.structs.replace(asked, request_id=f"queue-{nth}", max_wait=100.0)
                call = book.asks(acquire=mine)
                lease = await limiter.acquire(
                    asked.resource,
                    tokens=1,
                    max_wait=100.0,
                    request_id=mine.request_id,
                    ttl=_STUCK,
                )
                told = {"lease": lease.id, "request": lease.request_id}
                book.hears(call, diary.GRANTED, **told)
                await settle(lease)

            async def settle(lease: Lease) -> None:
                call = book.asks(settle=Settle(lease=lease.id))
                book.hears(call, diary.SETTLED, again=(await lease.settle()).already_settled)

            await asyncio.wait_for(asyncio.gather(*map(take, range(_WAITERS))), _STUCK)
        book.close()

    def _levels(self) -> dict[str, tuple[float, float]]:
        """Each limit and what remains of it, as a service reads it at the store."""
        found: dict[str, tuple[float, float]] = {}

        async def ask() -> None:
            async with httpx.AsyncClient(base_url=self._services[0].url, timeout=30) as client:

                async def answered() -> bool:
                    for model in ("m1", "one"):
                        answer = await client.get(f"/v1/resources/{self.stores.pool}/{model}")
                        if answer.status_code != 200 or answer.json()["degraded"]:
                            return False
                        for each in answer.json()["limits"]:
                            found[each["name"]] = (each["limit"], each["remaining"])
                    return True

                await until(answered, "the store does not answer", _STUCK)

        asyncio.run(ask())
        return found

    def spent(self) -> float:
        """What the store says was taken from the budget."""
        return rules.LIMIT - self._levels()[f"{self.stores.pool}.{rules.BUDGET}"][1]


def established(port: int) -> int:
    """Open connections at a port of loopback."""
    path = Path("/proc/net/tcp")
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    rows = (line.split() for line in lines)
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def trial(
    stores: Stores,
    home: Path,
    *,
    seed: int,
    calls: int,
    between: int = 40,
    tasks: int = 8,
    only: Sequence[str] = (),
    slips: Mapping[str, str] | None = None,
    durability: str = "fast",
    plot: str = "ordinary",
    say: Say = lambda _: None,
) -> Outcome:
    """Every fault once, in an order of the seed's, and again until so many calls are made."""
    luck = Random(seed)
    shared: dict[str, Any] = {"slips": slips, "durability": durability, "plot": plot}
    with Scene(stores, home, luck, tasks=tasks, **shared) as scene:
        faults = stores.faults() | scene.faults()
        names = sorted(only or faults)
        befell: list[Befell] = []
        while not befell or scene.calls < calls or not scene.shown():
            luck.shuffle(names)
            for name in names:
                began = time.time()
                faults[name](luck)
                befell.append(Befell(name, began, time.time()))
                stores.heal()
                scene.until_more(between)
                say(f"{scene.calls:,} calls; {name}: {befell[-1].ended - began:.1f} s")
        scene.until_more(between)
        scene.close_down()
        durable = stores.durable or (durability == "replicated" and stores.one_heir)
        torn = not stores.together.issuperset(names)
        evidence = scene.evidence(durable=durable, torn=torn)
        return scene.outcome(evidence, befell)


def lost_replies(
    stores: Standalone,
    home: Path,
    *,
    seed: int,
    lost: int,
    tasks: int = 8,
    slips: Mapping[str, str] | None = None,
    say: Say = lambda _: None,
) -> Outcome:
    """Until the answers to so many scripts, which have run, were lost on the way."""
    with Scene(stores, home, Random(seed), tasks=tasks, slips=slips) as scene:
        began = time.time()
        for way in stores.ways:
            way.rate = LOSS
        while stores.lost < lost:
            scene.until_more(max(10, min(1000, lost // 10)))
            say(f"{scene.calls:,} calls, {stores.lost:,} replies lost")
        for way in stores.ways:
            way.rate = 0.0
        befell = [Befell(f"{stores.lost:,} replies lost", began, time.time())]
        scene.until_more(20)
        scene.close_down()
        evidence = scene.evidence(durable=True)
        return scene.outcome(evidence, befell)
