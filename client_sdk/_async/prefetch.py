"""Blocks: asked for before they are needed, handed out here, and given back."""

import itertools
import logging
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from client_sdk._answers import Given
from client_sdk._async.handed import HandedLease
from client_sdk._handed_async import Keeper
from client_sdk.blocks import Ask, Block, Ending, Stock, Tell
from client_sdk.errors import LeaseError, Refused, ServiceUnavailable, SluicegateError
from client_sdk.figures import LocalFigures
from limiter_wire import (
    Acquire,
    Granted,
    Observe,
    Operation,
    Renewed,
    Settle,
    Settled,
    SpentLimit,
    Usage,
)

PREFIX = "block."
"""What the id of a lease begins with that was handed out here."""

_MOST_STOCKS = 1000
_PAUSE = 0.5  # seconds, where a refusal names none

_log = logging.getLogger("sluicegate")

Send = Callable[[Operation, Any], Awaitable[Any]]
Told = tuple[Mapping[str, str] | None, SpentLimit | None]
"""What a provider has said of its limits: in headers, in its text."""


class Prefetch:
    """The blocks of one limiter. Threads may share it.

    What is decided is in `client_sdk.blocks`; here is who asks and tells the service: one worker
    beside the callers.
    """

    kind = HandedLease

    def __init__(self, most: int, worker: str, send: Send, figures: LocalFigures) -> None:
        """*most* is the number of calls that a block may have."""
        self._most, self._worker, self._send, self._figures = most, worker, send, figures
        self._turn = threading.Lock()
        self._stocks: dict[tuple[str, str], Stock] = {}
        self._keeper = Keeper(self._round)
        self._names = itertools.count(1)
        self._named: dict[str, HandedLease] = {}
        self._told: dict[str, Told] = {}
        self._closed = False

    def take(
        self,
        resource: str,
        tenant: str,
        tokens: int,
        whole: bool,  # noqa: FBT001  # on the way of every call
    ) -> HandedLease | None:
        """A lease out of a block, None when the service is to be asked. Without *whole* the
        tokens are a sum, which not every limit goes by.
        """
        stock = self._stocks.get((resource, tenant))
        if stock is None:
            stock = self._open(resource, tenant)
            if stock is None:
                return None
        with self._turn:
            held = stock.block
            if not whole and held is not None and not held.plain:
                return None
            block = stock.take(tokens, time.monotonic())
        return None if block is None else HandedLease(self, block, tokens)

    def _open(self, resource: str, tenant: str) -> Stock | None:
        with self._turn:
            if self._closed or len(self._stocks) >= _MOST_STOCKS:
                return None
            stock = Stock(resource, tenant, self._most, self._keeper.wake)
            return self._stocks.setdefault((resource, tenant), stock)

    def stock(self, resource: str, tenant: str) -> Stock | None:
        """What is held for a tenant of a resource, None when nobody has called for it."""
        return self._stocks.get((resource, tenant))

    def end_well(self, block: Block, tokens: int, usage: Usage) -> None:
        """A call is over that has succeeded, and all that is known is its usage."""
        with self._turn:
            block.end_well(tokens, usage)
        if block.retired and block.under_way == 0:
            self._keeper.wake()

    def end(self, block: Block, tokens: int, ending: Ending, told: Told | None) -> None:
        """A call is over."""
        with self._turn:
            block.end(tokens, ending)
            news = block.urgent or (block.retired and block.under_way == 0)
            if told is not None:
                self._told[block.resource] = told
                news = news or told[1] is not None
            if ending.retry_after is not None:  # the provider wants to be left alone
                self._recall(block.resource)
        if news:
            self._keeper.wake()

    def more(self, block: Block, tokens: int) -> int:
        """A call under way needs so many tokens more, if any; how many were taken."""
        with self._turn:
            block.more(max(0, tokens))
        return max(0, tokens)

    async def renew(self, block: Block, ttl: float | None, tokens: int) -> Renewed:
        """Let the lease behind a block live on, as it is for a call of *tokens*."""
        from limiter_wire import Renew  # noqa: PLC0415  # seldom

        asked_at = time.monotonic()
        renewed: Renewed = await self._send(Operation.RENEW, Renew(lease=block.lease, ttl=ttl))
        with self._turn:
            block.lives_on(asked_at + renewed.expires_in, renewed.expires_in)
        charged = {"requests": 1.0, "tokens": float(tokens)}
        return replace(renewed, charged=charged)

    def name(self, lease: HandedLease, charged: dict[str, float]) -> Granted:
        """What a lease shows of itself, under an id by which it can be settled here."""
        name = f"{PREFIX}{next(self._names)}"
        self._named[name] = lease
        left = max(0.0, lease._block.expires - time.monotonic())  # noqa: SLF001  # of this package
        return Granted(lease=name, expires_in=left, charged=charged, limits=[])

    async def settle(self, report: Settle) -> Settled | None:
        """Settle a lease that was handed out here, by its id; None when it is another's."""
        if not report.lease.startswith(PREFIX):
            return None
        lease = self._named.get(report.lease)
        if lease is None:
            return Settled(already_settled=True)
        if report.phase is not None:
            return await lease.answering(report.ttft)
        lease.account(report.usage)
        lease.observed(
            report.headers,
            latency=report.latency,
            ttft=report.ttft,
            retry_after=report.retry_after,
            cause=report.cause,
            spent=report.spent,
        )
        lease._cost_usd = report.cost_usd  # noqa: SLF001  # of this package
        return await lease.settle(report.outcome)

    def forget(self, name: str) -> None:
        """The lease of that id has ended."""
        self._named.pop(name, None)

    def lease_of(self, name: str) -> HandedLease | None:
        """The lease that was handed out here under that id."""
        return self._named.get(name)

    def saw(self, request: Acquire, granted: Given) -> None:
        """Take in what an ordinary grant says of the limits."""
        stock = self._stocks.get((request.resource, request.tenant))
        if stock is not None:
            with self._turn:
                stock.saw(granted.limits)

    def count(self) -> None:
        """Let the figures of this process know of every call that is over."""
        with self._turn:
            blocks = [block for stock in self._stocks.values() for block in stock.blocks()]
            for block in blocks:
                self._figures.handed_out(block.resource, block.uncounted())

    def recall(self, resource: str) -> None:
        """Give back what is held of a resource: others wait, or it is not well."""
        with self._turn:
            self._recall(resource)
        self._keeper.wake()

    async def aclose(self) -> None:
        """Give back what is held. Calls under way keep what they have reserved."""
        with self._turn:
            self._closed = True
            for stock in self._stocks.values():
                stock.close(time.monotonic())
            busy = any(stock.blocks() for stock in self._stocks.values())
        if busy or self._told:
            self._keeper.wake()
        await self._keeper.finished()

    def _recall(self, resource: str) -> None:
        for stock in self._stocks.values():
            if stock.resource == resource:
                stock.recall(time.monotonic())

    # What the worker does

    async def _round(self) -> float | None:
        """Do what is to be done; in how many seconds there is more."""
        now = time.monotonic()
        with self._turn:
            errands = [each for stock in self._stocks.values() for each in stock.errands(now)]
            told, self._told = self._told, {}
        for errand in errands:
            if isinstance(errand, Ask):
                await self._ask(errand)
            else:
                await self._tell(errand)
        for resource, (headers, spent) in told.items():
            await self._observe(resource, headers, spent)
        with self._turn:
            if self._closed and not errands:
                return None
            now = time.monotonic()
            dues = [due for each in self._stocks.values() if (due := each.due(now)) is not None]
        return max(0.0, min(dues) - now) if dues else None

    async def _ask(self, wanted: Ask) -> None:
        stock = wanted.stock
        request = Acquire(
            resource=stock.resource,
            tenant=stock.tenant,
            tokens=wanted.tokens,
            block=wanted.calls,
            request_id=uuid.uuid4().hex,
            worker=self._worker,
        )
        asked_at = time.monotonic()
        reason: str | None = None
        pause = _PAUSE
        try:
            granted: Given | None = await self._send(Operation.ACQUIRE, request)
        except SluicegateError as error:
            granted, reason, pause = None, error.reason, error.retry_after or _PAUSE
        with self._turn:
            now = time.monotonic()
            if granted is None:
                stock.refused(reason, pause, now)
            elif granted.block is None:  # a service that does not know blocks: it is one lease
                stock.refused("forbidden", 60.0, now)
            else:
                stock.lent(granted, asked_at, now)
        if granted is not None and granted.block is None:
            await self._give_back(granted)

    async def _give_back(self, granted: Given) -> None:
        try:
            await self._send(Operation.SETTLE, Settle(lease=granted.lease, usage=Usage()))
        except SluicegateError as error:
            _log.debug("a lease was not given back: %s", error)

    async def _tell(self, news: Tell) -> None:
        block = news.block
        with self._turn:
            self._figures.handed_out(block.resource, block.uncounted())
            report = block.report(news.stage)
            sent = block.sent()
        try:
            answer: Settled = await self._send(
                Operation.SETTLE, Settle(lease=block.lease, block=report)
            )
        except (LeaseError, Refused) as error:
            _log.warning("a block of %s is over before its end: %s", block.resource, error)
            with self._turn:
                news.stock.forget(block)
            return
        except SluicegateError as error:
            if not isinstance(error, ServiceUnavailable):
                _log.warning("a block of %s was not settled: %s", block.resource, error)
            with self._turn:
                block.unheard(sent, time.monotonic())
                if self._closed or time.monotonic() >= block.expires:
                    news.stock.forget(block)
            return
        with self._turn:
            if report.stage == "ended":
                news.stock.forget(block)
            block.heard(sent, time.monotonic())
            if answer.breaker != "closed":
                self._recall(block.resource)

    async def _observe(
        self, resource: str, headers: Mapping[str, str] | None, spent: SpentLimit | None
    ) -> None:
        status = 200 if spent is None else 429
        seen = Observe(resource=resource, headers=dict(headers or {}), status=status, spent=spent)
        try:
            await self._send(Operation.OBSERVE, seen)
        except SluicegateError as error:
            _log.debug("what %s said of its limits was not told: %s", resource, error)
