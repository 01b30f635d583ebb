"""The limiter: acquire, check, settle and renew over HTTP."""

import random
import time
import uuid
from types import TracebackType
from typing import Any, Self

import stamina

from client_sdk import _codec
from client_sdk._async.lease import Lease
from client_sdk._shell_async import Acquisition, Exchange, acquisition, sleep
from client_sdk._transport import AsyncTransport
from client_sdk.errors import RateLimited, ServiceUnavailable
from client_sdk.options import LimiterOptions
from client_sdk.retry import again
from limiter_wire import Acquire, Checked, Operation, Renew, Renewed, Settle, Settled, Usage

_SPREAD = 0.05  # of a wait, so that those who wait for one limit do not ask in one instant


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
        """*http_transport* is an httpx transport for tests; None is the network."""
        self._options = options or LimiterOptions()
        self._tenant = tenant
        self._random = random.Random()  # noqa: S311  # spreads waits, keeps no secret
        transport = AsyncTransport(url.rstrip("/"), api_key, self._options, http_transport)
        self._exchange = Exchange(transport)

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
        """Wait for answers under way and close the connections."""
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
    ) -> Acquisition:
        """Reserve budget: `async with` settles on exit, `await` leaves that to you.

        Give `tokens`, or `input_tokens` with `max_output_tokens`. `max_wait` and `ttl` are
        seconds. Raises RateLimited when there is no room within `max_wait`, NeverFits,
        UnknownResource, InvalidRequest, RequestConflict, ServiceUnavailable.
        """
        request = Acquire(
            resource=resource,
            tokens=tokens,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
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
        return acquisition(self._acquire(request))

    async def check(
        self,
        resource: str,
        *,
        tokens: int | None = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        cost_usd: float | None = None,
        tenant: str | None = None,
    ) -> Checked:
        """What an acquire would answer now; changes nothing."""
        request = Acquire(
            resource=resource,
            tokens=tokens,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            cost_usd=cost_usd,
            tenant=tenant or self._tenant,
        )
        checked: Checked = await self._send(Operation.CHECK, request)
        return checked

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

    async def _acquire(self, request: Acquire) -> Lease:
        began = time.monotonic()
        while True:
            try:
                granted = await self._send(Operation.ACQUIRE, request)
            except RateLimited as refusal:
                wait = refusal.retry_after or 0.0
                left = began + request.max_wait - time.monotonic()
                if wait >= left:
                    raise
                await sleep(min(left, wait * (1 + _SPREAD * self._random.random())))
            else:
                assert request.request_id is not None
                return Lease(granted, request.resource, request.request_id, self.settle, self.renew)

    async def _send(self, operation: Operation, request: _codec.Request) -> Any:
        op = _codec.op(operation, request)
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
