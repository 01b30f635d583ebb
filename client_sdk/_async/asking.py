"""Asking the service: once, again after a failure, and in its place where it is lost."""

import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from client_sdk import _codec, _tracing
from client_sdk._answers import Given
from client_sdk._async.lease import Lease
from client_sdk._async.prefetch import Prefetch
from client_sdk._codec import AT_ONCE, AcquireOp, Op, RenewOp, SettleOp
from client_sdk._shell_async import Aside, Cancelled, Exchange, Stopped, is_called_off, sleep
from client_sdk.alone import PREFIX, Alone, Shortage
from client_sdk.calibration import Estimate
from client_sdk.denials import Denials
from client_sdk.errors import RateLimited, Refused, ServiceUnavailable, SluicegateError
from client_sdk.figures import LocalFigures
from client_sdk.options import LimiterOptions
from client_sdk.progress import LONGEST_PAUSE, Progress, pause_before_asking, progress_of
from client_sdk.retry import pause_after
from limiter_wire import (
    Acquire,
    Granted,
    Operation,
    Outcome,
    Renewed,
    Settle,
    Settled,
    Usage,
    Waiting,
)

_log = logging.getLogger("sluicegate")

T = TypeVar("T")

LONGEST_LOSS = 10.0
"""Seconds that a caller who may wait goes on asking while the service cannot be reached."""


class Asking:
    """What a limiter asks, and what it goes by when nobody answers. `prefetch` is what it holds,
    and `settles` is how its leases are settled where that is not what is done here.
    """

    def __init__(self, exchange: Exchange, options: LimiterOptions, figures: LocalFigures) -> None:
        self.exchange, self._options, self._figures = exchange, options, figures
        self._denials = Denials() if options.remember_refusals else None
        mode = options.on_service_loss
        self.alone = None if mode == "closed" else Alone(mode, options.part)
        self.prefetch: Prefetch | None = None
        self.settles: Callable[[Settle], Awaitable[Settled]] | None = None
        self._random = random.Random()  # noqa: S311  # spreads waits, keeps no secret

    # Leases

    async def acquire(
        self,
        request: AcquireOp,
        renew: Callable[[str, float | None, Usage | None], Awaitable[Renewed]],
        on_wait: Callable[[Progress], None] | None = None,
        estimate: Estimate | None = None,
    ) -> Lease:
        """A lease, to be renewed by *renew*. Raises the exception for what the service refused."""
        trace = _tracing.provided()
        granted: Given | Granted
        try:
            denials, alone = self._denials, self.alone
            if (
                trace is None
                and on_wait is None
                and (denials is None or not denials.known)
                and (alone is None or not alone.lost)
            ):  # as nearly always; nothing but this is between the caller and the answer
                began, op = time.monotonic(), Op(Operation.ACQUIRE, request, request.max_wait)
                try:
                    said = await self.exchange.begin(op)
                except (*Stopped, SluicegateError) as failure:
                    granted = await self._granted(request, None, None, (began, op, failure))
                else:
                    if isinstance(said, Given):
                        self._note(request, said)
                        granted = said
                    else:
                        granted = await self._granted(request, None, None, (began, op, said))
            elif trace is None:
                granted = await self._granted(request, on_wait, None)
            else:
                with _tracing.Acquiring(trace, request) as span:
                    granted = await self._granted(request, on_wait, trace)
                    span.granted(granted)
        except Cancelled as cancelled:
            if not is_called_off(cancelled):
                Aside().do(partial(self._abandon, request))
            raise
        except SluicegateError as refusal:
            self._figures.refused(request.resource, refusal)
            raise
        self._figures.granted(request.resource, granted.waited)
        assert request.request_id is not None
        return Lease(granted, request.resource, request.request_id, self._settle, renew, estimate)

    async def _settle(self, resource: str, report: Settle) -> Settled:
        """Settle a lease of *resource*, and hear what that says of the circuit."""
        if (
            self.settles is None
            and type(report) is SettleOp
            and not report.lease.startswith(PREFIX)
            and _tracing.provided() is None
        ):
            op = Op(Operation.SETTLE, report)
            settled: Settled
            try:
                settled = await self.exchange.begin(op)
            except (*Stopped, ServiceUnavailable) as failure:
                settled = await self._settled(op, failure)
            if self.alone is not None:
                self._found(settled)
        else:
            settled = await (self.settles or self.settle)(report)
        self._figures.settled(resource, report)
        if self._denials is not None and self._denials.known and settled.breaker == "closed":
            self._denials.closed(resource)
        return settled

    async def settle(self, report: Settle) -> Settled:
        """Settle a lease by its id."""
        if self.alone is not None:
            kept, report = self.alone.settle(report)
            if kept is not None:
                if not self.alone.lost and self.alone.find():
                    await self.flush()
                return kept
        trace = _tracing.provided()
        if trace is None and type(report) is SettleOp:
            op = Op(Operation.SETTLE, report)
        else:
            op = _codec.op(Operation.SETTLE, report, 0.0, _tracing.traceparent(trace))
        settled = await self._settled(op)
        if self.alone is not None:
            self._found(settled)
        return settled

    async def _settled(self, op: Op, said: BaseException | None = None) -> Settled:
        """The answer to *op*; *said* is what has come of it already, if anything has."""
        try:
            settled: Settled = await self._asked(op, said)
        except ServiceUnavailable as error:
            settled = await self._again(op, error, time.monotonic())
        finally:
            del said  # an exception knows this frame, and would be known by it
        return settled

    async def renew(
        self, lease: str, ttl: float | None = None, usage: Usage | None = None
    ) -> Renewed:
        """Keep a lease alive by its id."""
        if self.alone is not None:
            kept, lease = self.alone.renew(lease, ttl, time.monotonic())
            if kept is not None:
                return kept
        request = RenewOp(lease=lease, ttl=ttl, usage=usage)
        renewed: Renewed = await self.send(Operation.RENEW, request)
        return renewed

    async def flush(self) -> None:
        """Let the service charge and settle what was granted here, as far as it can be reached."""
        assert self.alone is not None
        while (grant := self.alone.next()) is not None:
            try:
                if grant.lease is None:
                    age = max(0.0, time.monotonic() - grant.at)
                    asked = replace(grant.request, max_wait=AT_ONCE, since=min(age, 86_400.0))
                    op = _codec.op(Operation.ACQUIRE, asked)
                    self.alone.charged(grant, (await self.exchange.send(op)).lease)
                if grant.report is not None:
                    report = replace(grant.report, lease=grant.lease)
                    await self.exchange.send(_codec.op(Operation.SETTLE, report))
                    self.alone.done(grant)
            except ServiceUnavailable:
                self.alone.give_up()
                return
            except SluicegateError as error:
                _log.warning("a lease that was granted here is not charged: %s", error)
                self.alone.done(grant)

    async def _abandon(self, request: AcquireOp) -> None:
        """Leave the queue at once; what was granted meanwhile goes back unused."""
        await self.exchange.landed()  # the question that is left may be on its way yet
        try:
            answer = await self.send(Operation.ACQUIRE, replace(request, max_wait=AT_ONCE))
            unused = SettleOp(lease=answer.lease, outcome=Outcome.CANCELLED, usage=Usage())
            await (self.settles or self.settle)(unused)
        except SluicegateError:
            return  # it was not waiting any more, or its place and its lease end by themselves

    # Until there is a grant

    async def _granted(
        self,
        request: AcquireOp,
        on_wait: Callable[[Progress], None] | None,
        trace: Any,
        begun: tuple[float, Op, Any] | None = None,
    ) -> Given | Granted:
        """Ask until there is a grant: the queue keeps the place between two questions. *begun* is
        when the first one was asked, and what has come of it, where it was asked already.
        """
        if begun is None and self._denials is not None and self._denials.known:
            self._refuse_known(self._denials, request)
        began = time.monotonic() if begun is None else begun[0]
        deadline = began + request.max_wait
        hold: float | None = None
        news: Callable[[Waiting], None] | None = None
        asked = request
        if on_wait is not None:
            hold = 0.0  # over HTTP; a channel brings news meanwhile
            news = partial(_tell, on_wait)
            asked = replace(request, hold=hold)
        lost_since: float | None = None
        known = False  # whether the service may have heard of it
        while True:
            if begun is None and self.alone is not None and not self.alone.may_ask(began):
                taken = self._take_alone(request, deadline)
                if taken is not None:
                    return taken
            try:
                said = None
                if begun is not None:
                    (_, op, said), begun = begun, None
                elif trace is None:
                    op = Op(Operation.ACQUIRE, asked, asked.max_wait, news, known)
                else:
                    parent = _tracing.traceparent(trace)
                    op = _codec.op(Operation.ACQUIRE, asked, asked.max_wait, parent)
                    op.news, op.asked = news, known
                try:
                    answer = await self._asked(op, said)
                    if self.alone is not None:
                        self._found(answer)
                except ServiceUnavailable as error:
                    answer = await self._again(op, error, began)
                finally:
                    said = None  # an exception knows this frame, and would be known by it
            except ServiceUnavailable as error:
                if self._unreachable(error):
                    taken = self._take_alone(request, deadline)
                    if taken is not None:
                        return taken
                lost_since, known = lost_since or began, True
                left = deadline - time.monotonic()
                if left <= 0 or time.monotonic() - lost_since >= LONGEST_LOSS:
                    raise
                await sleep(min(left, self._options.max_backoff))
                began = time.monotonic()
                continue
            except Refused as refusal:
                if self._denials is not None:
                    self._denials.heard(request.resource, refusal, began)
                raise
            if isinstance(answer, Given):
                self._note(request, answer)
                return answer
            lost_since, known = None, True
            if on_wait is not None:
                on_wait(progress_of(answer))
                hold = LONGEST_PAUSE
            pause = pause_before_asking(answer, time.monotonic() - began)
            await sleep(max(0.0, min(pause, deadline - time.monotonic())))
            began = time.monotonic()
            asked = replace(request, max_wait=max(0.0, deadline - began) or AT_ONCE, hold=hold)

    def _note(self, request: AcquireOp, granted: Given) -> None:
        """Take in what the service has granted."""
        if self._denials is not None and self._denials.known:
            self._denials.forget(request.resource)
        if self.prefetch is not None:
            self.prefetch.saw(request, granted)
        if self.alone is not None:
            self._found(granted)
            self.alone.heard(request, granted, time.monotonic())

    def _refuse_known(self, denials: Denials, request: Acquire) -> None:
        """Raise what the service has said a moment ago and would say again."""
        refusal = denials.refusal(
            request.resource, request.max_wait, request.request_id, time.monotonic()
        )
        if refusal is not None:
            raise refusal

    # While the service is lost

    def _unreachable(self, error: ServiceUnavailable) -> bool:
        """Whether this process is to decide: what the service has answered is its own answer."""
        if self.alone is None or error.code is not None:
            return False
        if self.alone.lose(time.monotonic()):
            _log.warning("%s: it is granted here (%s)", error, self._options.on_service_loss)
        return True

    def _take_alone(self, request: Acquire, deadline: float) -> Granted | None:
        """A lease of this process's own; None when nothing is known to go by, or when there may
        be room before *deadline*. Raises RateLimited.
        """
        assert self.alone is not None
        taken = self.alone.take(request, time.monotonic())
        if taken is None:
            return None
        if not isinstance(taken, Shortage):
            return taken.granted
        if time.monotonic() < deadline:
            return None
        raise RateLimited(
            "the service cannot be reached, and this process's share of the limit is spent",
            resource=request.resource,
            request_id=request.request_id,
            retry_after=taken.retry_after,
            phase="acquire",
            limit=taken.limit,
            limits=taken.limits,
        )

    # One question

    async def send(self, operation: Operation, request: _codec.Request) -> Any:
        """The answer to *request*, which is sent again when the network or the store fails."""
        op = _codec.op(operation, request, 0.0, _tracing.traceparent(_tracing.provided()))
        began = time.monotonic()
        try:
            return self._found(await self.exchange.send(op))
        except ServiceUnavailable as error:
            failure = error
        return await self._again(op, failure, began)

    async def _asked(self, op: Op, said: Any = None) -> Any:
        """The answer to *op*; *said* is what has come of it already, if anything has."""
        try:
            if isinstance(said, Stopped):
                return await self.exchange.instead(op, said)
            if isinstance(said, BaseException):
                raise said
            return await self.exchange.send(op) if said is None else said
        finally:
            del said  # an exception knows this frame, and would be known by it

    async def _again(self, op: Op, failure: ServiceUnavailable, began: float) -> Any:
        """The answer to *op*, which was sent once at *began*, and failed."""
        for attempt in itertools.count(1):
            if attempt == self._options.attempts or self._gives_up(op, began):
                raise failure
            pause = pause_after(failure, attempt, self._options, self._random.random())
            await sleep(pause)
            try:
                return self._found(await self.exchange.send(op))
            except ServiceUnavailable as error:
                failure = error
        raise AssertionError("unreachable")

    def _gives_up(self, op: Op, began: float) -> bool:
        """Whether one failure is enough, since this process can decide: when it knows that the
        service is lost, or when the failure has cost all the time that an answer may take.
        """
        if self.alone is None or not isinstance(op.request, Acquire):
            return False
        slow = time.monotonic() - began >= self._options.timeout
        return self.alone.knows(op.request) and (self.alone.lost or slow)

    def _found(self, answer: T) -> T:
        """*answer*, which says that the service is there: what was granted here is due."""
        if self.alone is not None and self.alone.find():
            Aside().do(self.flush)
        return answer


def _tell(on_wait: Callable[[Progress], None], waiting: Waiting) -> None:
    on_wait(progress_of(waiting))
