"""The limiter: acquire, check, settle and renew."""

import random
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import stamina
from msgspec.structs import replace

from client_sdk import _codec
from client_sdk._async.lease import Lease
from client_sdk._shell_async import Acquisition, Exchange, abandonable, acquisition, sleep
from client_sdk.calibration import DEFAULT, Adopts, Estimate, label_of
from client_sdk.errors import ServiceUnavailable, SluicegateError
from client_sdk.options import LimiterOptions
from client_sdk.progress import LONGEST_PAUSE, Progress, pause_before_asking, progress_of
from client_sdk.retry import again
from limiter_wire import (
    Acquire,
    Checked,
    Granted,
    Operation,
    Outcome,
    Renew,
    Renewed,
    Settle,
    Settled,
    Usage,
)

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
    ) -> None:
        """*http_transport* is an httpx transport for tests, and turns the channel off; None is
        the network.
        """
        self._options = options or LimiterOptions()
        self._tenant = tenant
        self._random = random.Random()  # noqa: S311  # spreads waits, keeps no secret
        self._exchange = Exchange(url.rstrip("/"), api_key, self._options, http_transport)

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
        off.
        """
        await self._exchange.aclose()

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
        seconds. While the request waits its turn, `on_wait` is told where it stands, every 2
        seconds. Raises RateLimited when there is no room and `max_wait` is 0, WaitTooLong
        when the predicted wait is longer than `max_wait`, WaitTimeout when it was, QueueFull,
        NeverFits, UnknownResource, InvalidRequest, RequestConflict, ServiceUnavailable.
        """
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
            request_id=request_id or uuid.uuid4().hex,
            worker=worker,
            attempt=attempt,
            route=route,
            ttl=ttl,
        )
        return acquisition(self._acquire(request, on_wait, estimate))

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

    async def settle(self, report: Settle) -> Settled:
        """Settle a lease by its id, from whatever process."""
        settled: Settled = await self._send(Operation.SETTLE, report)
        return settled

    async def renew(
        self, lease: str, ttl: float | None = None, usage: Usage | None = None
    ) -> Renewed:
        """Keep a lease alive by its id, charging *usage* beyond its reservation."""
        request = Renew(lease=lease, ttl=ttl, usage=usage)
        renewed: Renewed = await self._send(Operation.RENEW, request)
        return renewed

    async def _acquire(
        self,
        request: Acquire,
        on_wait: Callable[[Progress], None] | None,
        estimate: Estimate | None = None,
    ) -> Lease:
        granted = await abandonable(self._granted(request, on_wait), lambda: self._abandon(request))
        assert request.request_id is not None
        resource, request_id = request.resource, request.request_id
        return Lease(granted, resource, request_id, self.settle, self.renew, estimate)

    async def _granted(
        self, request: Acquire, on_wait: Callable[[Progress], None] | None
    ) -> Granted:
        """Ask until there is a grant: the queue keeps the place between two questions."""
        deadline = time.monotonic() + request.max_wait
        hold = None if on_wait is None else 0.0
        asked = request if hold is None else replace(request, hold=hold)
        lost_since: float | None = None
        while True:
            began = time.monotonic()
            try:
                answer = await self._send(Operation.ACQUIRE, asked, asked.max_wait)
            except ServiceUnavailable:
                lost_since = lost_since or began
                left = deadline - time.monotonic()
                if left <= 0 or time.monotonic() - lost_since >= LONGEST_LOSS:
                    raise
                await sleep(min(left, self._options.max_backoff))
                continue
            if isinstance(answer, Granted):
                return answer
            lost_since = None
            if on_wait is not None:
                on_wait(progress_of(answer))
                hold = LONGEST_PAUSE
            pause = pause_before_asking(answer, time.monotonic() - began)
            await sleep(max(0.0, min(pause, deadline - time.monotonic())))
            left = max(0.0, deadline - time.monotonic())
            asked = replace(request, max_wait=left, hold=hold)

    async def _abandon(self, request: Acquire) -> None:
        """Leave the queue at once; what was granted meanwhile goes back unused."""
        try:
            answer = await self._send(Operation.ACQUIRE, replace(request, max_wait=0.0))
            unused = Usage()
            await self.settle(Settle(lease=answer.lease, outcome=Outcome.CANCELLED, usage=unused))
        except SluicegateError:
            return  # it was not waiting any more, or its place and its lease end by themselves

    async def _send(self, operation: Operation, request: _codec.Request, waits: float = 0.0) -> Any:
        op = _codec.op(operation, request, waits)
        try:
            return await self._exchange.send(op)
        except ServiceUnavailable as error:
            if self._options.attempts == 1:
                raise
            asked = again(error)
            spread = self._random.uniform(0, self._options.backoff)
            await sleep(spread if asked is True else asked + spread)
        # Only what failed pays for the machinery of retrying.
        async for attempt in stamina.retry_context(
            on=again,
            attempts=self._options.attempts - 1,
            timeout=None,
            wait_initial=self._options.backoff,
            wait_max=self._options.max_backoff,
            wait_jitter=self._options.backoff,
        ):
            with attempt:
                return await self._exchange.send(op)
        raise AssertionError("unreachable")
