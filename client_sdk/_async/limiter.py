"""The limiter: acquire, check, settle and renew; calls that are limited; a look at the service."""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar
from urllib.parse import quote

from client_sdk._answers import view
from client_sdk._async.asking import Asking
from client_sdk._async.lease import Lease
from client_sdk._async.prefetch import Prefetch
from client_sdk._codec import AT_ONCE, AcquireOp, CheckOp, ObserveOp
from client_sdk._credentials import key_of
from client_sdk._handed_async import handed
from client_sdk._shell_async import Acquisition, Exchange, acquisition, sleep
from client_sdk.alone import AloneFigures
from client_sdk.blocks import plain_size
from client_sdk.calibration import DEFAULT, Adopts, Estimate, label_of
from client_sdk.errors import ServiceUnavailable, SluicegateError
from client_sdk.figures import LocalFigures, Statistics
from client_sdk.options import LimiterOptions
from client_sdk.outcomes import telling
from client_sdk.progress import Progress
from client_sdk.repeats import PATIENCE, id_of, pause_before
from client_sdk.usages import refuse_stream, usage_of
from client_sdk.worker import worker_name
from limiter_wire import (
    MOST_CALLS,
    BreakerView,
    Checked,
    Noticed,
    Operation,
    Renewed,
    Settle,
    Settled,
    Stats,
    Usage,
)
from limiter_wire.naming import new_request_id

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
        self._random = random.Random()  # noqa: S311  # spreads waits, keeps no secret
        self._figures = LocalFigures()
        exchange = Exchange(url.rstrip("/"), key_of(api_key), self._options, http_transport)
        self._asking = Asking(exchange, self._options, self._figures)
        self._prefetch: Prefetch | None = None
        if prefetch:
            worker = self._options.worker or worker_name()
            self._prefetch = Prefetch(prefetch, worker, self._asking.send, self._figures)
            self._asking.prefetch = self._prefetch
            exchange.tell(self._prefetch.recall)
        if type(self).settle is not Limiter.settle:
            self._asking.settles = self.settle

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
        alone = self._asking.alone
        if alone is not None and alone.find():
            await self._asking.flush()
        await self._asking.exchange.aclose()

    def alone(self) -> AloneFigures:
        """What was done here while the service could not be reached."""
        if self._asking.alone is None:
            return AloneFigures(lost=False, losses=0, granted=0, refused=0, charged=0, uncharged=0)
        return self._asking.alone.figures()

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
                else_ask = resource, whose, sizes, priority, max_wait, on_wait
                what = resource, whose, size, tokens is not None
                return handed(prefetch=self._prefetch, what=what, ask=self._ask, asked=else_ask)
        if estimate is not None:
            if tokens is None and input_tokens is None:
                input_tokens = max(1, estimate.tokens)
            route = route or label_of(estimate.route)
        request = AcquireOp(
            resource=resource,
            tokens=tokens,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            cost_usd=cost_usd,
            tenant=tenant or self._tenant,
            priority=priority,
            max_wait=max_wait or AT_ONCE,
            request_id=request_id or new_request_id(),
            worker=worker or self._options.worker or worker_name(),
            attempt=attempt,
            route=route,
            ttl=ttl,
        )
        return acquisition(self._asking.acquire(request, self.renew, on_wait, estimate))

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
        request = AcquireOp(
            resource=resource,
            tokens=tokens,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            tenant=tenant,
            priority=priority,
            max_wait=max_wait or AT_ONCE,
            request_id=new_request_id(),
            worker=self._options.worker or worker_name(),
        )
        return await self._asking.acquire(request, self.renew, on_wait)

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
        request = CheckOp(
            resource=resource,
            tokens=tokens,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            cost_usd=cost_usd,
            tenant=tenant or self._tenant,
            route=route,
        )
        checked: Checked = await self._asking.send(Operation.CHECK, request)
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
        return await self._asking.settle(report)

    async def observe(
        self, resource: str, headers: Mapping[str, str], status: int = 200
    ) -> Noticed:
        """Tell the fleet what a provider said to a call that had no lease."""
        request = ObserveOp(resource=resource, headers=telling(headers), status=status)
        noticed: Noticed = await self._asking.send(Operation.OBSERVE, request)
        return noticed

    async def renew(
        self, lease: str, ttl: float | None = None, usage: Usage | None = None
    ) -> Renewed:
        """Keep a lease alive by its id, charging *usage* beyond its reservation."""
        own = self._prefetch.lease_of(lease) if self._prefetch is not None else None
        if own is not None:
            return await own.renew(ttl, usage=usage)
        return await self._asking.renew(lease, ttl, usage)

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
        answer = await self._asking.exchange.look(f"/v1/breakers/{quote(resource)}")
        return view(BreakerView, *answer)

    async def stats(self, since: str = "hour") -> Statistics:
        """What happened in the fleet in the time *since* (`minute`, `hour`, `day`, `90s`), and to
        the calls of this limiter: `local`. Where the service cannot be reached, only that, and
        `degraded` says so.
        """
        if self._prefetch is not None:
            self._prefetch.count()
        try:
            answer = await self._asking.exchange.look(f"/v1/stats?since={quote(since)}")
        except ServiceUnavailable:
            return self._figures.beside(Stats(since=0.0, degraded=True))
        return self._figures.beside(view(Stats, *answer))
