"""The limiter: acquire, check, settle and renew; calls that are limited; a look at the service."""

import itertools
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar
from urllib.parse import quote

from msgspec.structs import replace

from client_sdk import _codec, _tracing
from client_sdk._async.lease import Lease
from client_sdk._async.prefetch import Prefetch
from client_sdk._credentials import key_of
from client_sdk._handed_async import handed
from client_sdk._shell_async import Acquisition, Aside, Exchange, abandonable, acquisition, sleep
from client_sdk.alone import Alone, AloneFigures, Shortage
from client_sdk.blocks import plain_size
from client_sdk.calibration import DEFAULT, Adopts, Estimate, label_of
from client_sdk.denials import Denials
from client_sdk.errors import RateLimited, Refused, ServiceUnavailable, SluicegateError
from client_sdk.figures import LocalFigures, Statistics
from client_sdk.options import LimiterOptions
from client_sdk.outcomes import telling
from client_sdk.progress import LONGEST_PAUSE, Progress, pause_before_asking, progress_of
from client_sdk.repeats import PATIENCE, id_of, pause_before
from client_sdk.retry import pause_after
from client_sdk.usages import refuse_stream, usage_of
from client_sdk.worker import worker_name
from limiter_wire import (
    MOST_CALLS,
    Acquire,
    BreakerView,
    Checked,
    Granted,
    Noticed,
    Observe,
    Operation,
    Outcome,
    Renew,
    Renewed,
    Settle,
    Settled,
    Stats,
    Usage,
    Waiting,
)

if TYPE_CHECKING:
    from client_sdk._async.wrapped import WrappedStream
    from client_sdk.streaming import StreamTimeouts

_log = logging.getLogger("sluicegate")

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_LOSS = 10.0
"""Seconds that a caller who may wait goes on asking while the service cannot be reached."""


class Limiter:
    """Takes from the shared budget. One per process; tasks share it.

    Every call carries a request id, so that sending it again after a network failure
    charges once.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        tenant: str = "default",
        options: LimiterOptions | None = None,
        http_transport: Any = None,
        prefetch: int = 0,
    ) -> None:
        """*api_key* is `SLUICEGATE_API_KEY` of the environment where it is None.
        *http_transport* is an httpx transport for tests, and turns the channel off; None is the
        network. *prefetch* lets this process hold blocks of so many calls of a resource at most,
        and hand them out without asking; 0 asks for every call.
        """
        if not 0 <= prefetch <= MOST_CALLS:
            raise ValueError(f"prefetch={prefetch!r}: allowed is 0 to {MOST_CALLS} calls")
        self._options = options or LimiterOptions()
        self._tenant = tenant
        self._denials = Denials() if self._options.remember_refusals else None
        mode = self._options.on_service_loss
        self._alone = None if mode == "closed" else Alone(mode, self._options.part)
        self._random = random.Random()  # noqa: S311  # spreads waits, keeps no secret
        self._figures = LocalFigures()
        self._exchange = Exchange(url.rstrip("/"), key_of(api_key), self._options, http_transport)
        self._prefetch: Prefetch | None = None
        if prefetch:
            worker = self._options.worker or worker_name()
            self._prefetch = Prefetch(prefetch, worker, self._send, self._figures)
            self._exchange.tell(self._prefetch.recall)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for answers under way and close the connections. Acquires that wait are called
        off. What was granted while the service was lost is charged, if it is back.
        """
        if self._prefetch is not None:
            await self._prefetch.aclose()
        if self._alone is not None and self._alone.find():
            await self._flush()
        await self._exchange.aclose()

    def alone(self) -> AloneFigures:
        """What was done here while the service could not be reached."""
        if self._alone is None:
            return AloneFigures(lost=False, losses=0, granted=0, refused=0, charged=0, uncharged=0)
        return self._alone.figures()

    def acquire(
        self,
        resource: str,
        *,
        tokens: int | None = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        cost_usd: float | None = None,
        tenant: str | None = None,
        priority: int = 5,
        max_wait: float = 0.0,
        request_id: str | None = None,
        worker: str | None = None,
        attempt: int = 1,
        route: str | None = None,
        ttl: float | None = None,
        cache_read_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        estimate: Estimate | None = None,
        on_wait: Callable[[Progress], None] | None = None,
    ) -> Acquisition:
        """Reserve budget: `async with` settles on exit, `await` leaves that to you.

        Give `tokens`, or `input_tokens` (of which `cache_read_tokens` and `cache_write_tokens`
        are parts) with `max_output_tokens`. An `estimate` stands for `input_tokens` and `route`,
        and what the call really used calibrates everybody's estimates. `max_wait` and `ttl` are
        seconds. While the request waits its turn, `on_wait` is told where it stands: at once, and
        when that has changed, each second at most. Raises RateLimited when there is no room and
        `max_wait` is 0, WaitTooLong when the predicted wait is longer than `max_wait`,
        WaitTimeout when it was, QueueFull, BreakerOpen when the resource is down for longer than
        `max_wait`, NeverFits, UnknownResource, InvalidRequest, RequestConflict,
        ServiceUnavailable.
        """
        if (
            self._prefetch is not None
            and request_id is None
            and attempt == 1
            and cost_usd is None
            and route is None
            and estimate is None
            and ttl is None
            and worker is None
            and cache_read_tokens is None
            and cache_write_tokens is None
        ):
            size = plain_size(tokens, input_tokens, max_output_tokens)
            if size is not None:
                whose = tenant or self._tenant
                sizes = tokens, input_tokens, max_output_tokens
                ask = partial(self._ask, resource, whose, sizes, priority, max_wait, on_wait)
                return handed(self._prefetch, (resource, whose, size, tokens is not None), ask)
        if estimate is not None:
            if tokens is None and input_tokens is None:
                input_tokens = max(1, estimate.tokens)
            route = route or label_of(estimate.route)
        request = Acquire(
            resource=resource,
            tokens=tokens,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            cost_usd=cost_usd,
            tenant=tenant or self._tenant,
            priority=priority,
            max_wait=max_wait,
            request_id=request_id or os.urandom(16).hex(),
            worker=worker or self._options.worker or worker_name(),
            attempt=attempt,
            route=route,
            ttl=ttl,
        )
        return acquisition(self._acquire(request, on_wait, estimate))

    async def _ask(
        self,
        resource: str,
        tenant: str,
        sizes: tuple[int | None, int | None, int | None],
        priority: int,
        max_wait: float,
        on_wait: Callable[[Progress], None] | None,
    ) -> Lease:
        """Acquire what could not be handed out here."""
        tokens, input_tokens, max_output_tokens = sizes
        request = Acquire(
            resource=resource,
            tokens=tokens,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            tenant=tenant,
            priority=priority,
            max_wait=max_wait,
            request_id=os.urandom(16).hex(),
            worker=self._options.worker or worker_name(),
        )
        return await self._acquire(request, on_wait)

    async def check(
        self,
        resource: str,
        *,
        tokens: int | None = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        cost_usd: float | None = None,
        tenant: str | None = None,
        route: str | None = None,
    ) -> Checked:
        """What an acquire would answer now; changes nothing."""
        request = Acquire(
            resource=resource,
            tokens=tokens,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            cost_usd=cost_usd,
            tenant=tenant or self._tenant,
            route=route,
        )
        checked: Checked = await self._send(Operation.CHECK, request)
        return checked

    async def calibrate(
        self, estimator: Adopts, resource: str, *, model: str | None = None, route: str = DEFAULT
    ) -> bool:
        """Let *estimator* begin with what the fleet has learned of *route*; whether there was
        anything. *model* is the name that the estimator knows it by (default: the resource's).
        """
        checked = await self.check(resource, tokens=1, route=label_of(route))
        if not checked.calibration:
            return False
        estimator.adopt(model or resource.partition("/")[2], route, checked.calibration)
        return True

    def transport(
        self,
        inner: Any,
        *,
        pool: str | None = None,
        resource: str | Callable[[Any], str | None] | None = None,
        tenant: str | None = None,
        max_wait: float | None = None,
    ) -> Any:
        """*inner*, a transport or a client of httpx or httpx2, with its calls of models limited.

        Each attempt takes a lease before it is sent, and settles it when its answer is over;
        what a lease cannot be had for is answered here, with 429 or 503. The resource is the
        pool (default: the provider) and the request's model, or *resource*: a name, or a
        function of the request, None letting it pass. `max_wait` is in seconds, and 0 by
        default. A client is changed in place.
        """
        from client_sdk._async.transport import limited  # noqa: PLC0415  # only who needs it

        return limited(self, inner, pool=pool, resource=resource, tenant=tenant, max_wait=max_wait)

    def wrap_stream(
        self,
        chunks: Any,
        *,
        lease: Lease | None = None,
        resource: str | None = None,
        tokens: int | None = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        tenant: str | None = None,
        max_wait: float = 0.0,
        dialect: str | None = None,
        timeouts: "StreamTimeouts | None" = None,
    ) -> "WrappedStream":
        """*chunks* of whatever SDK, handed on as they are, under a lease that settles when they
        end: with the usage that they carry, and how they ended.

        *chunks* may be what opens the stream: a function, called when the lease is there. The
        lease is *lease*, or is taken of *resource* when iteration begins. *dialect* is found by
        the first chunk. When *timeouts* are over, StreamStalled is raised; bytes that bring no
        chunk (pings) are not seen. Who may leave it in the middle enters it, as a context.
        """
        from client_sdk._async.wrapped import WrappedStream  # noqa: PLC0415  # only who needs it

        acquire = None
        if lease is None and resource is not None:
            name = resource

            def acquire() -> Any:
                return self.acquire(
                    name,
                    tokens=tokens,
                    input_tokens=input_tokens,
                    max_output_tokens=max_output_tokens,
                    tenant=tenant,
                    max_wait=max_wait,
                )

        return WrappedStream(
            chunks,
            acquire,
            lease=lease,
            dialect=dialect,
            timeouts=timeouts,
            input_tokens=input_tokens,
        )

    async def settle(self, report: Settle) -> Settled:
        """Settle a lease by its id, from whatever process."""
        if self._prefetch is not None:
            ended = await self._prefetch.settle(report)
            if ended is not None:
                return ended
        if self._alone is not None:
            kept, report = self._alone.settle(report)
            if kept is not None:
                if not self._alone.lost and self._alone.find():
                    await self._flush()
                return kept
        settled: Settled = await self._send(Operation.SETTLE, report)
        return settled

    async def observe(
        self, resource: str, headers: Mapping[str, str], status: int = 200
    ) -> Noticed:
        """Tell the fleet what a provider said to a call that had no lease."""
        request = Observe(resource=resource, headers=telling(headers), status=status)
        noticed: Noticed = await self._send(Operation.OBSERVE, request)
        return noticed

    async def renew(
        self, lease: str, ttl: float | None = None, usage: Usage | None = None
    ) -> Renewed:
        """Keep a lease alive by its id, charging *usage* beyond its reservation."""
        own = self._prefetch.lease_of(lease) if self._prefetch is not None else None
        if own is not None:
            return await own.renew(ttl, usage=usage)
        if self._alone is not None:
            kept, lease = self._alone.renew(lease, ttl, time.monotonic())
            if kept is not None:
                return kept
        request = Renew(lease=lease, ttl=ttl, usage=usage)
        renewed: Renewed = await self._send(Operation.RENEW, request)
        return renewed

    async def call(
        self,
        func: Callable[..., Awaitable[T]],
        *args: Any,
        resource: str,
        tokens: int | None = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        cost_usd: float | None = None,
        tenant: str | None = None,
        priority: int = 5,
        max_wait: float = 0.0,
        request_id: str | None = None,
        route: str | None = None,
        ttl: float | None = None,
        attempts: int = 1,
        usage: Callable[[T], Usage | None] = usage_of,
        **kwargs: Any,
    ) -> T:
        """Call `func(*args, **kwargs)` under a lease, and report how it ended and what it used.

        *usage* says what the result has used; without it the results of the usual clients are
        understood. With *attempts* above 1 a failure that may pass is tried again, after the
        time that the provider asked for, as far as the shared retry budget allows; else the
        failure is raised as it came. Raises what *func* raises, and what `acquire` raises.
        """
        failed: Exception | None = None
        for attempt in range(1, max(1, attempts) + 1):
            try:
                lease = await self.acquire(
                    resource,
                    tokens=tokens,
                    input_tokens=input_tokens,
                    max_output_tokens=max_output_tokens,
                    cost_usd=cost_usd,
                    tenant=tenant,
                    priority=priority,
                    max_wait=max_wait if failed is None else max(max_wait, PATIENCE),
                    request_id=id_of(request_id, attempt),
                    attempt=attempt,
                    route=route,
                    ttl=ttl,
                )
            except SluicegateError as refusal:
                if failed is None:
                    raise
                failed.add_note(f"it was not tried again: {refusal}")
                raise failed from failed.__cause__
            try:
                async with lease:
                    result: T = await func(*args, **kwargs)
                    refuse_stream(result)
                    lease.account(usage(result))
            except Exception as error:
                pause = pause_before(error, attempt, self._random)
                if pause is None or attempt >= attempts:
                    raise
                failed = error
                await sleep(pause)
            else:
                return result
        raise AssertionError("unreachable")

    def limited(
        self,
        resource: str,
        *,
        tokens: int | Callable[P, int] | None = None,
        input_tokens: int | Callable[P, int] | None = None,
        max_output_tokens: int | None = None,
        tenant: str | None = None,
        priority: int = 5,
        max_wait: float = 0.0,
        route: str | None = None,
        attempts: int = 1,
        usage: Callable[[Any], Usage | None] = usage_of,
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
        """Decorate a function: every call of it goes through `call`.

        `tokens` and `input_tokens` may be functions of its arguments.
        """

        def decorate(func: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
            @wraps(func)
            async def limited_func(*args: P.args, **kwargs: P.kwargs) -> T:
                result: T = await self.call(
                    partial(func, *args, **kwargs),
                    resource=resource,
                    tokens=tokens(*args, **kwargs) if callable(tokens) else tokens,
                    input_tokens=(
                        input_tokens(*args, **kwargs) if callable(input_tokens) else input_tokens
                    ),
                    max_output_tokens=max_output_tokens,
                    tenant=tenant,
                    priority=priority,
                    max_wait=max_wait,
                    route=route,
                    attempts=attempts,
                    usage=usage,
                )
                return result

            return limited_func

        return decorate

    async def breaker(self, resource: str) -> BreakerView:
        """The circuit of a resource: its state, and when it refuses why and for how long."""
        answer = await self._exchange.look(f"/v1/breakers/{quote(resource)}")
        return _codec.view(BreakerView, *answer)

    async def stats(self, since: str = "hour") -> Statistics:
        """What happened in the fleet in the time *since* (`minute`, `hour`, `day`, `90s`), and to
        the calls of this limiter: `local`. Where the service cannot be reached, only that, and
        `degraded` says so.
        """
        if self._prefetch is not None:
            self._prefetch.count()
        try:
            answer = await self._exchange.look(f"/v1/stats?since={quote(since)}")
        except ServiceUnavailable:
            return self._figures.beside(Stats(since=0.0, degraded=True))
        return self._figures.beside(_codec.view(Stats, *answer))

    async def _acquire(
        self,
        request: Acquire,
        on_wait: Callable[[Progress], None] | None,
        estimate: Estimate | None = None,
    ) -> Lease:
        try:
            with _tracing.acquiring(request) as span:
                granted = await abandonable(
                    self._granted(request, on_wait), lambda: self._abandon(request)
                )
                if span is not None:
                    span.granted(granted)
        except SluicegateError as refusal:
            self._figures.refused(request.resource, refusal)
            raise
        self._figures.granted(request.resource, granted.waited)
        assert request.request_id is not None
        settle = partial(self._settle, request.resource)
        resource, request_id = request.resource, request.request_id
        return Lease(granted, resource, request_id, settle, self.renew, estimate)

    async def _settle(self, resource: str, report: Settle) -> Settled:
        """Settle, and hear what it says of the circuit."""
        settled = await self.settle(report)
        self._figures.settled(resource, report)
        if self._denials is not None and settled.breaker == "closed":
            self._denials.closed(resource)
        return settled

    def _refuse_known(self, request: Acquire) -> None:
        """Raise what the service has said a moment ago and would say again."""
        if self._denials is None:
            return
        refusal = self._denials.refusal(
            request.resource, request.max_wait, request.request_id, time.monotonic()
        )
        if refusal is not None:
            raise refusal

    async def _granted(
        self, request: Acquire, on_wait: Callable[[Progress], None] | None
    ) -> Granted:
        """Ask until there is a grant: the queue keeps the place between two questions."""
        self._refuse_known(request)
        deadline = time.monotonic() + request.max_wait
        hold = None if on_wait is None else 0.0  # over HTTP; a channel brings news meanwhile
        news = None if on_wait is None else lambda waiting: on_wait(progress_of(waiting))
        first = asked = request if hold is None else replace(request, hold=hold)
        lost_since: float | None = None
        while True:
            began = time.monotonic()
            if self._alone is not None and not self._alone.may_ask(began):
                taken = self._take_alone(request, deadline)
                if taken is not None:
                    return taken
            try:
                known = asked is not first or lost_since is not None
                answer = await self._send(
                    Operation.ACQUIRE, asked, asked.max_wait, news, asked=known
                )
            except ServiceUnavailable as error:
                if self._unreachable(error):
                    taken = self._take_alone(request, deadline)
                    if taken is not None:
                        return taken
                lost_since = lost_since or began
                left = deadline - time.monotonic()
                if left <= 0 or time.monotonic() - lost_since >= LONGEST_LOSS:
                    raise
                await sleep(min(left, self._options.max_backoff))
                continue
            except Refused as refusal:
                if self._denials is not None:
                    self._denials.heard(request.resource, refusal, began)
                raise
            if isinstance(answer, Granted):
                if self._denials is not None:
                    self._denials.forget(request.resource)
                if self._prefetch is not None:
                    self._prefetch.saw(request, answer)
                if self._alone is not None:
                    self._alone.heard(request, answer, time.monotonic())
                return answer
            lost_since = None
            if on_wait is not None:
                on_wait(progress_of(answer))
                hold = LONGEST_PAUSE
            pause = pause_before_asking(answer, time.monotonic() - began)
            await sleep(max(0.0, min(pause, deadline - time.monotonic())))
            left = max(0.0, deadline - time.monotonic())
            asked = replace(request, max_wait=left, hold=hold)

    def _unreachable(self, error: ServiceUnavailable) -> bool:
        """Whether this process is to decide: what the service has answered is its own answer."""
        if self._alone is None or error.code is not None:
            return False
        if self._alone.lose(time.monotonic()):
            _log.warning("%s: it is granted here (%s)", error, self._options.on_service_loss)
        return True

    def _take_alone(self, request: Acquire, deadline: float) -> Granted | None:
        """A lease of this process's own; None when nothing is known to go by, or when there may
        be room before *deadline*. Raises RateLimited.
        """
        assert self._alone is not None
        taken = self._alone.take(request, time.monotonic())
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

    async def _flush(self) -> None:
        """Let the service charge and settle what was granted here, as far as it can be reached."""
        assert self._alone is not None
        while (grant := self._alone.next()) is not None:
            try:
                if grant.lease is None:
                    age = max(0.0, time.monotonic() - grant.at)
                    asked = replace(grant.request, max_wait=0.0, since=min(age, 86_400.0))
                    op = _codec.op(Operation.ACQUIRE, asked)
                    self._alone.charged(grant, (await self._exchange.send(op)).lease)
                if grant.report is not None:
                    report = replace(grant.report, lease=grant.lease)
                    await self._exchange.send(_codec.op(Operation.SETTLE, report))
                    self._alone.done(grant)
            except ServiceUnavailable:
                self._alone.give_up()
                return
            except SluicegateError as error:
                _log.warning("a lease that was granted here is not charged: %s", error)
                self._alone.done(grant)

    async def _abandon(self, request: Acquire) -> None:
        """Leave the queue at once; what was granted meanwhile goes back unused."""
        try:
            answer = await self._send(Operation.ACQUIRE, replace(request, max_wait=0.0))
            unused = Usage()
            await self.settle(Settle(lease=answer.lease, outcome=Outcome.CANCELLED, usage=unused))
        except SluicegateError:
            return  # it was not waiting any more, or its place and its lease end by themselves

    async def _send(
        self,
        operation: Operation,
        request: _codec.Request,
        waits: float = 0.0,
        news: Callable[[Waiting], None] | None = None,
        *,
        asked: bool = False,
    ) -> Any:
        """*asked* says that the service may know of the request already."""
        op = _codec.op(operation, request, waits, _tracing.traceparent())
        op.news, op.asked = news, asked
        began = time.monotonic()
        for attempt in itertools.count(1):
            try:
                return self._found(await self._exchange.send(op))
            except ServiceUnavailable as error:
                if attempt == self._options.attempts or self._gives_up(request, began):
                    raise
                pause = pause_after(error, attempt, self._options, self._random.random())
            await sleep(pause)
        raise AssertionError("unreachable")

    def _gives_up(self, request: _codec.Request, began: float) -> bool:
        """Whether one failure is enough, since this process can decide: when it knows that the
        service is lost, or when the failure has cost all the time that an answer may take.
        """
        if self._alone is None or not isinstance(request, Acquire):
            return False
        slow = time.monotonic() - began >= self._options.timeout
        return self._alone.knows(request) and (self._alone.lost or slow)

    def _found(self, answer: T) -> T:
        """*answer*, which says that the service is there: what was granted here is due."""
        if self._alone is not None and self._alone.find():
            Aside().do(self._flush)
        return answer
