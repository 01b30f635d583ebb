"""What callers do: ask, wait, hang up, use, report, and die in between."""

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from tests_support.ledger import Broken
from tests_support.scripts import POOL
from world import DEADLINE

from limiter_service.engine.admission import Engine
from limiter_service.engine.refusals import Refusal
from limiter_service.store.keys import Keys, line_id
from limiter_wire import (
    Acquire,
    ErrorCode,
    Granted,
    Outcome,
    Renew,
    Settle,
    Settled,
    Usage,
    Waiting,
)

if TYPE_CHECKING:
    from story import Story

_ILL = [Outcome.SERVER_ERROR, Outcome.RATE_LIMITED, Outcome.CANCELLED]
_HELD = [0.01] * 6 + [0.1] * 4 + [0.5] * 4 + [2.0] * 3 + [5.5, 8.0]
"""Seconds that calls take; the longest outlives its lease."""
_TWICE = 0.05
_UNANSWERED = frozenset({ErrorCode.STORE_UNAVAILABLE})
_KEYS = Keys(POOL)


class Caller:
    """One process that calls, again and again."""

    def __init__(self, story: "Story", number: int) -> None:
        self._story, self._luck, self._number = story, story.luck, number
        self._now = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Call until the story has had its calls."""
        story, luck, turn = self._story, self._luck, 0
        while story.told.calls < story.most:
            turn += 1
            await self._rest(
                max(luck.expovariate(story.plot.pace), story.quiet_until - self._now())
            )
            asked = Acquire(
                resource=f"{POOL}/{luck.choice(story.plot.models)}",
                tenant=luck.choice(story.plot.tenants),
                tokens=luck.choice([1, 5, 20, 60, 150]),
                request_id=f"{self._number}-{turn}",
                worker=f"w{self._number}",
                priority=luck.choice([2, 5, 5, 9]),
                max_wait=luck.choice(story.plot.waits),
            )
            key = _KEYS.lease(asked.tenant, f"{self._number}-{turn}")
            model = asked.resource.partition("/")[2]
            story.known[key] = story.policies.policy(asked.resource, asked.tenant)
            story.standing[key] = line_id(model, asked.tenant, asked.priority)
            lease = await self._acquire(asked, key)
            if lease is not None:
                await self._use(asked, lease)
            if turn % 8 == 0:
                story.look()

    async def _acquire(self, asked: Acquire, key: str) -> Granted | None:
        """Ask until there is an answer, of whichever replica; now and then once more."""
        luck, until = self._luck, self._now() + asked.max_wait
        tries = 0
        while tries < 6:
            asked = replace(asked, max_wait=max(0.0, until - self._now()))
            answer = await self._ask(asked, key)
            if isinstance(answer, Granted):
                if luck.random() < 0.1 and not answer.degraded:
                    await self._again(asked, answer)
                return answer
            if isinstance(answer, Waiting):
                await asyncio.sleep(min(answer.predicted_wait, 1.0))
                continue
            if answer is None:
                return None
            if answer.problem.code not in _UNANSWERED | {ErrorCode.SHUTTING_DOWN}:
                if luck.random() < 0.5:
                    await asyncio.sleep(min(2.0, answer.problem.retry_after or 0.1))
                return None
            if luck.random() < 0.2:
                break
            tries += 1
            await asyncio.sleep(luck.uniform(0.01, 0.3))
        self._story.lines.gone[key] = self._now()
        return None

    async def _ask(self, asked: Acquire, key: str) -> Granted | Waiting | Refusal | None:
        """One question; None when the caller is gone."""
        story, luck = self._story, self._luck
        at = story.some_replica()
        engine = story.engines[at]
        if asked.max_wait <= 0 and not story.plot.alone:
            if story.plot.beat and luck.random() < _TWICE:
                return await self._ask_twice(engine, asked)
            return await story.do(engine.acquire(asked))
        hold = luck.choice([None, None, 0.5, 1.0])
        task = asyncio.get_running_loop().create_task(story.do(engine.acquire(asked, hold)))
        story.held[at][task] = None
        hangs_up = "hang-ups" in story.faults and luck.random() < 0.15
        began, most = self._now(), asked.max_wait + 3 * (DEADLINE + 2 * story.weather.slow) + 0.5
        try:
            patience = luck.uniform(0.0, 3.0) if hangs_up else None
            await asyncio.wait({task}, timeout=patience)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
                story.told.faults["hang-ups"] += 1
                if task.cancelled():
                    return await self._hang_up(asked, key, at)
        finally:
            task.cancel()
            story.held[at].pop(task, None)
        if self._now() - began > most:
            raise Broken(f"{key} has waited {self._now() - began:.3f} s of {asked.max_wait:.3f}")
        if not task.cancelled() and not story.is_dead(engine):
            return task.result()
        if luck.random() < 0.8:  # the replica is gone, and others are there
            return await self._ask(asked, key)
        story.lines.gone[key] = self._now()
        return None

    async def _ask_twice(self, engine: Engine, asked: Acquire) -> Granted | Waiting | Refusal:
        """The same question twice at the same moment: it may be in one group twice."""
        do, faults = self._story.do, self._story.faults
        both = await asyncio.gather(do(engine.acquire(asked)), do(engine.acquire(asked)))
        granted = [each for each in both if isinstance(each, Granted)]
        if len({each.lease for each in granted}) > 1 and "failover" not in faults:
            raise Broken(f"two leases for one request: {asked.request_id}")
        return granted[0] if granted else both[0]

    async def _hang_up(
        self, asked: Acquire, key: str, at: int
    ) -> Granted | Waiting | Refusal | None:
        """Come back, say goodbye, or do not."""
        story, luck = self._story, self._luck
        what = luck.random()
        if what < 0.4:
            await asyncio.sleep(luck.uniform(0.0, 2.0))
            return await self._ask(asked, key)
        story.lines.gone[key] = self._now()
        if what < 0.7:
            story.ledger.left.add(key)
            with contextlib.suppress(Refusal):
                await story.engines[at].cancel(asked)
        return None

    async def _again(self, asked: Acquire, first: Granted) -> None:
        """The same request has the same lease."""
        asked, story = replace(asked, max_wait=0.0), self._story
        again = await story.do(story.some_engine().acquire(asked))
        other = isinstance(again, Granted) and again.lease != first.lease and not again.degraded
        if other and "failover" not in story.faults:
            raise Broken(f"a second lease for one request: {asked.request_id}")

    async def _use(self, asked: Acquire, granted: Granted) -> None:
        luck, story, lease = self._luck, self._story, granted.lease
        await self._rest(luck.choice(_HELD))
        if "dead callers" in story.faults and luck.random() < 0.1:
            story.told.faults["dead callers"] += 1
            return
        if luck.random() < 0.1 and not granted.degraded:
            used = Usage(input_tokens=luck.randint(0, 2 * (asked.tokens or 0)))
            await story.do(story.some_engine().renew(Renew(lease=lease, usage=used)))
            await self._rest(luck.choice([0.1, 3.0]))
        if luck.random() < 0.2:
            await self._settle(Settle(lease=lease, phase="first_token", ttft=0.2))
        outcome = Outcome.SERVER_ERROR if story.down else self._outcome()
        used = Usage(input_tokens=luck.randint(0, round(1.2 * (asked.tokens or 0))))
        report = Settle(
            lease=lease,
            outcome=outcome,
            usage=used if luck.random() < 0.8 else None,
            retry_after=0.3 if outcome is Outcome.RATE_LIMITED else None,
        )
        for _ in range(luck.choice([1, 6, 6, 6])):
            if story.plot.beat and luck.random() < _TWICE:
                answer, _ = await asyncio.gather(self._settle(report), self._settle(report))
            else:
                answer = await self._settle(report)
            heard = answer is not None
            if isinstance(answer, Refusal):
                heard = answer.problem.code not in _UNANSWERED
            if heard and luck.random() < 0.9:
                return
            await self._rest(luck.uniform(0.01, 0.5))

    def _outcome(self) -> Outcome:
        if self._luck.random() < self._story.plot.well:
            return Outcome.SUCCESS
        return self._luck.choice(_ILL)

    async def _rest(self, seconds: float) -> None:
        """Do nothing for so long, or until the beat after."""
        beat = self._story.plot.beat
        if beat:
            now = self._now()
            seconds = math.ceil((now + seconds) / beat) * beat - now
        await asyncio.sleep(seconds)

    async def _settle(self, report: Settle) -> Any:
        story = self._story
        engine = story.some_engine()
        answer = await story.do(engine.settle(report))
        if story.is_dead(engine):
            return None  # it has died meanwhile
        if isinstance(answer, Settled) and answer.degraded and answer.settled:
            story.ended(engine, report.lease, anew=not answer.already_settled)
        return answer
