"""`python -m tests_support.trial.worker`: a process that calls as programs do, and keeps a diary.

A plan on stdin; when stdin ends, it makes no further call and ends when those under way have.
"""

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from client_sdk import Limiter, LimiterOptions
from client_sdk.errors import ServiceFault, ServiceUnavailable, SluicegateError
from limiter_wire import Acquire, ErrorCode, Outcome, Settle, Usage
from tests_support.trial import diary, rules
from tests_support.trial.diary import Diary
from tests_support.trial.moments import work

PAUSE = 0.02
_FAILURES = [Outcome.SERVER_ERROR, Outcome.RATE_LIMITED, Outcome.CANCELLED]
_SIZES, _SMALL = [1, 5, 20, 60, 150], [1, 2, 5, 10]
_AGAIN = frozenset({ErrorCode.STORE_UNAVAILABLE, ErrorCode.SHUTTING_DOWN})


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Who the worker is, whom it asks, and how many of its callers do so at a time."""

    url: str
    name: str
    seed: int
    diary: str
    pool: str
    plot: str = "ordinary"
    tasks: int = 8
    channel: str = "auto"
    timeout: float = 2.0


class Worker:
    """Callers over one limiter."""

    def __init__(self, plan: Plan) -> None:
        options = LimiterOptions(
            timeout=plan.timeout,
            connect_timeout=plan.timeout,
            channel=plan.channel,  # type: ignore[arg-type]  # a word of the plan
            on_service_loss="closed",
            worker=plan.name,
        )
        self._plan, self._plot = plan, rules.PLOTS[plan.plot]
        self._limiter = Limiter(plan.url, options=options, prefetch=self._plot.prefetch)
        self._diary = Diary(Path(plan.diary))
        self.over = asyncio.Event()

    async def run(self) -> None:
        """Until it is over."""
        async with asyncio.TaskGroup() as group:
            for nth in range(self._plan.tasks):
                group.create_task(self._caller(nth, random.Random(f"{self._plan.seed} {nth}")))
        await self._limiter.aclose()
        self._diary.close()

    async def _caller(self, nth: int, luck: random.Random) -> None:
        turn = 0
        while not self.over.is_set():
            turn += 1
            asked = self._wish(f"{self._plan.name}-{nth}-{turn}", luck)
            if self._plot.crowds and asked.request_id is not None:
                await self._crowd(asked, luck)
            else:
                await self._call(asked, luck)
            await work(luck, PAUSE)

    def _wish(self, name: str, luck: random.Random) -> Acquire:
        """What a call asks for. One that may be handed out of a block has no name."""
        handed = self._plot.prefetch and luck.random() < 0.75
        model, tenant = rules.USUAL
        if not handed:
            model, tenant = (
                luck.choice(["m1", "m1", "m1", "m2"]),
                luck.choice(["big", "big", "small"]),
            )
        return Acquire(
            resource=f"{self._plan.pool}/{model}",
            tenant=tenant,
            tokens=luck.choice(_SMALL if handed else _SIZES),
            max_wait=4.0 if not handed and luck.random() < self._plot.waits else 0.0,
            request_id=None if handed else name,
            worker=None if handed else self._plan.name,
        )

    async def _crowd(self, asked: Acquire, luck: random.Random) -> None:
        """Many that want the same at one moment."""
        calls = [
            self._call(
                replace(asked, request_id=f"{asked.request_id}-{n}", tokens=luck.choice(_SIZES)),
                random.Random(luck.random()),
            )
            for n in range(luck.randint(2, 8))
        ]
        await asyncio.gather(*calls)

    async def _call(self, asked: Acquire, luck: random.Random) -> None:
        lease = await self._acquire(asked, luck)
        if lease:
            await self._use(asked, lease, luck)

    async def _acquire(self, asked: Acquire, luck: random.Random) -> str:
        """Ask with one request id until there is an answer; the lease, if it is granted."""
        named = asked.request_id is not None
        for _ in range(luck.choice([1, 6, 6, 6]) if named else 1):
            told = await self._asked(asked)
            if told.told == diary.GRANTED:
                if named and luck.random() < 0.05:
                    await self._asked(asked)
                return told.lease
            if told.told == diary.REFUSED:
                return ""
            await work(luck, 10 * PAUSE)
        return ""

    async def _asked(self, asked: Acquire) -> diary.Line:
        async def ask() -> dict[str, Any]:
            lease = await self._limiter.acquire(
                asked.resource,
                tokens=asked.tokens,
                tenant=asked.tenant,
                max_wait=asked.max_wait,
                request_id=asked.request_id,
            )
            return {"told": diary.GRANTED, "lease": lease.id, "request": lease.request_id}

        return await self._told(self._diary.asks(acquire=asked), ask)

    async def _use(self, asked: Acquire, lease: str, luck: random.Random) -> None:
        await work(luck, luck.choice([0.0, 0.0, PAUSE, PAUSE, 10 * PAUSE]))
        if luck.random() < 0.02:
            return  # it forgets: the lease ends by itself
        most = asked.tokens or 0
        handed = lease.startswith(rules.BLOCK)
        if not handed and luck.random() < 0.05:
            usage = Usage(input_tokens=luck.randint(0, 2 * most))

            async def renew() -> dict[str, Any]:
                await self._limiter.renew(lease, usage=usage)
                return {"told": diary.RENEWED}

            await self._told(self._diary.asks(renew=lease), renew)
        failed = luck.random() < self._plot.failures
        outcome = luck.choice(_FAILURES) if failed else Outcome.SUCCESS
        report = Settle(
            lease=lease,
            outcome=outcome,
            usage=Usage(input_tokens=luck.randint(0, most))
            if handed or luck.random() < 0.8
            else None,
            retry_after=PAUSE if outcome is Outcome.RATE_LIMITED else None,
        )
        for _ in range(1 if handed else luck.choice([1, 6, 6, 6])):
            told = await self._settled(report)
            if told.told != diary.UNKNOWN and luck.random() < 0.95:
                return
            await work(luck, 5 * PAUSE)

    async def _settled(self, report: Settle) -> diary.Line:
        async def settle() -> dict[str, Any]:
            answer = await self._limiter.settle(report)
            return {"told": diary.SETTLED, "again": answer.already_settled}

        return await self._told(self._diary.asks(settle=report), settle)

    async def _told(self, call: int, ask: Any) -> diary.Line:
        """What a call comes to, written down."""
        try:
            answer = await ask()
        except (ServiceUnavailable, ServiceFault) as error:
            answer = {"told": diary.UNKNOWN, "code": error.code or "", "text": str(error)[:200]}
        except SluicegateError as error:
            told = diary.UNKNOWN if error.code in _AGAIN else diary.REFUSED
            answer = {"told": told, "code": error.code or type(error).__name__}
        self._diary.hears(call, **answer)
        return diary.Line(call=call, at=time.time(), **answer)


async def be(plan: Plan) -> None:
    """One worker."""
    worker = Worker(plan)

    async def listen() -> None:
        await asyncio.to_thread(sys.stdin.read)
        worker.over.set()

    listening = asyncio.create_task(listen())
    await worker.run()
    await listening


if __name__ == "__main__":
    asyncio.run(be(msgspec.json.decode(sys.stdin.readline(), type=Plan)))
