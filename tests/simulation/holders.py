"""Processes that hold blocks: they hand calls out of them, report, give back, and die in between."""

import asyncio
from typing import TYPE_CHECKING

from loans import HANDED
from tests_support.scripts import POOL

from client_sdk.blocks import Ask, Block, Ending, Stock, Tell
from limiter_service.engine.refusals import Refusal
from limiter_service.store.keys import Keys
from limiter_wire import Acquire, ErrorCode, Granted, Outcome, Settle, Settled, Usage

if TYPE_CHECKING:
    from story import Story

_KEYS = Keys(POOL)
_MOST = 20
_LASTS = (0.01, 0.05, 0.2, 1.0, 3.0)
_ILL = (Outcome.SERVER_ERROR, Outcome.RATE_LIMITED, Outcome.CANCELLED)
_PAUSE = 0.5
_LATEST = 30.0


class Holder:
    """One process: `client_sdk.blocks` decides, this asks, tells and calls in its place."""

    def __init__(self, story: "Story", number: int) -> None:
        self._story, self._luck, self._number = story, story.luck, number
        self._loop = asyncio.get_running_loop()
        self._asked = 0
        self._keys: dict[str, str] = {}
        self._begin()

    def _begin(self) -> None:
        luck = self._luck
        resource = f"{POOL}/{luck.choice(self._story.plot.models)}"
        self._wake = asyncio.Event()
        self._tenant = luck.choice(self._story.plot.tenants)
        self._stock = Stock(resource, self._tenant, _MOST, self._wake.set)
        self._rate = luck.choice((4.0, 10.0, 25.0))

    async def run(self) -> None:
        """Call until the story has had its calls; a process that dies is followed by another."""
        story, luck = self._story, self._luck
        works = self._loop.create_task(self._work(self._stock))
        try:
            while story.told.calls < story.most:
                await asyncio.sleep(luck.expovariate(self._rate))
                self._call(luck.choice((1, 5, 20)))
                if works.done():
                    works.result()
                if "dead callers" in story.faults and luck.random() < 0.004:
                    story.told.faults["dead callers"] += 1
                    works.cancel()
                    self._begin()
                    works = self._loop.create_task(self._work(self._stock))
        finally:
            works.cancel()

    def _call(self, tokens: int) -> None:
        stock, now, luck = self._stock, self._loop.time(), self._luck
        block = stock.take(tokens, now)
        if block is None:
            return
        self._story.told.counts["handed"] += 1
        self._story.store.write(
            "handed", self._keys[block.lease], HANDED.pack(1, tokens, block.until), b""
        )
        well = luck.random() < self._story.plot.well and not self._story.down
        used = Usage(input_tokens=luck.randint(0, tokens), output_tokens=luck.choice((0, 0, 0, 3)))
        outcome = Outcome.SUCCESS if well else luck.choice(_ILL)
        ending = Ending(
            outcome=outcome,
            usage=used if luck.random() < 0.9 else None,
            retry_after=0.3 if outcome is Outcome.RATE_LIMITED else None,
        )
        self._loop.call_later(luck.choice(_LASTS), self._end, stock, block, tokens, ending)

    def _end(self, stock: Stock, block: Block, tokens: int, ending: Ending) -> None:
        if stock is not self._stock:
            return  # its process is dead
        before = block.tokens
        if ending.outcome is Outcome.SUCCESS and ending.usage is not None:
            block.end_well(tokens, ending.usage)
        else:
            block.end(tokens, ending)
        back = block.tokens - before
        if ending.outcome is not Outcome.SUCCESS:
            back = tokens
        if back > 0:
            said = HANDED.pack(0, -back, block.until)
            self._story.store.write("handed", self._keys[block.lease], said, b"")
        if ending.retry_after is not None:
            stock.recall(self._loop.time())
        self._wake.set()

    # What goes on beside the calls.

    async def _work(self, stock: Stock) -> None:
        """As `Prefetch` does: what is to be done, one after another."""
        while True:
            self._wake.clear()
            for errand in list(stock.errands(self._loop.time())):
                await (self._ask(errand) if isinstance(errand, Ask) else self._tell(errand))
            due, now = stock.due(self._loop.time()), self._loop.time()
            pause = _LATEST if due is None else max(0.001, due - now)
            timer = self._loop.call_later(pause, self._wake.set)
            await self._wake.wait()
            timer.cancel()

    async def _ask(self, wanted: Ask) -> None:
        story, stock, asked_at = self._story, wanted.stock, self._loop.time()
        self._asked += 1
        name = f"h{self._number}-{self._asked}"
        asked = Acquire(
            resource=stock.resource,
            tenant=stock.tenant,
            tokens=wanted.tokens,
            block=wanted.calls,
            request_id=name,
            worker=f"h{self._number}",
        )
        key = _KEYS.lease(stock.tenant, name)
        story.known[key] = story.policies.policy(stock.resource, stock.tenant)
        story.standing[key] = b""
        for _ in range(self._luck.choice((1, 1, 2, 3))):
            engine = story.some_engine()
            answer = await self._story.do(engine.acquire(asked))
            lost = isinstance(answer, Refusal) and (
                answer.problem.code is ErrorCode.STORE_UNAVAILABLE
            )
            if not lost:
                break
        now = self._loop.time()
        if isinstance(answer, Granted):
            self._keys[answer.lease] = key
            stock.lent(answer, asked_at, now)
            if not story.is_dead(engine):
                assert answer.block is not None
                engine.lending.recalls.watch(
                    stock.resource, answer.block.hold, lambda _: stock.recall(self._loop.time())
                )
            return
        assert isinstance(answer, Refusal)
        told = answer.problem
        stock.refused(told.reason, told.retry_after or _PAUSE, now)

    async def _tell(self, news: Tell) -> None:
        block = news.block
        report = block.report(news.stage)
        sent = block.sent()
        engine = self._story.some_engine()
        answer = await self._story.do(engine.settle(Settle(lease=block.lease, block=report)))
        now = self._loop.time()
        if isinstance(answer, Settled):
            if report.stage == "ended":
                news.stock.forget(block)
            block.heard(sent, now)
            if answer.breaker != "closed":
                news.stock.recall(now)
        elif answer.problem.code is ErrorCode.STORE_UNAVAILABLE:
            block.unheard(sent, now)
            if now >= block.expires:
                news.stock.forget(block)
        else:  # it is over before its end
            news.stock.forget(block)
