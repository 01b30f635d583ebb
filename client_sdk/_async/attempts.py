"""One attempt of a provider call under a lease: from the request to the settle.

    async with Attempt(stream, lease, provider="openai") as attempt:
        attempt.start()
        response = await client.send(request, stream=True)
        attempt.opened(response.status_code, response.headers, response.aclose)
        if attempt.refused:
            await attempt.refuse(await response.aread())
        async for data in response.aiter_bytes():
            chunks = attempt.feed(data)
            if attempt.done:
                break
        await attempt.finish()

However it ends, also by an exception or by cancellation, the connection is released first
and the lease is settled then, once, and both are shielded from cancellation.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from client_sdk._async.lease import Lease
from client_sdk._shell_async import Aside, shielded
from client_sdk.errors import CallFailed, SluicegateError
from client_sdk.outcomes import Headers, telling
from client_sdk.reports import (
    Report,
    broken,
    ended,
    judge,
    report,
    request_id_in,
    unserved,
    usage_to_report,
)
from client_sdk.streaming import ProviderFault, StreamAccumulator, StreamChunk, StreamOutcome
from limiter_wire import Outcome, Settled, Usage

if TYPE_CHECKING:
    from limiter_wire.providers import Failure

_log = logging.getLogger("sluicegate")


class Attempt:
    """Owns one stream and, unless it is None, the lease that it runs under.

    `input_tokens` is the estimate to report where the provider counts nothing. Without
    `settles` the lease is left open at the end, and `settle` closes it: for who may try again
    under the same reservation.
    """

    def __init__(
        self,
        stream: StreamAccumulator,
        lease: Lease | None = None,
        *,
        provider: str = "generic",
        resource: str | None = None,
        request_id: str | None = None,
        input_tokens: int | None = None,
        settles: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream, self.lease, self.provider = stream, lease, provider
        self.resource = resource or (lease.resource if lease else None)
        self.request_id = request_id or (lease.request_id if lease else None)
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.provider_request_id: str | None = None
        self._input_tokens, self._settles, self._clock = input_tokens, settles, clock
        self._release: Callable[[], Awaitable[None]] | None = None
        self._failure: Failure | None = None
        self._told_early = lease is None or not lease.granted.probe
        self._renew_at = self._next_renewal()
        self._aside = Aside()
        self._over = self._settled = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            await self.fail(error)
        else:
            await self.cancel()

    # What the caller tells.

    def start(self) -> None:
        """The request goes out."""
        self.stream.start(self._clock())

    def opened(
        self,
        status: int = 200,
        headers: Headers = (),
        release: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """The head of the answer arrived. *release* gives its connection back."""
        self.stream.opened(self._clock())
        self.status, self._release = status, release
        self.headers, self.provider_request_id = telling(headers), request_id_in(headers)

    def feed(self, data: bytes) -> list[StreamChunk]:
        """Take the next bytes of the body; return what they complete. Never raises, waits for
        nothing.
        """
        now = self._clock()
        chunks = self.stream.feed(data, now)
        if not self._told_early and self.stream.committed:
            self._tell_early()
        if now >= self._renew_at:
            self._renew()
        return chunks

    def pause(self) -> None:
        """The consumer holds a chunk: from now its time runs."""
        self.stream.pause(self._clock())

    def resume(self) -> None:
        """The consumer asks for more."""
        self.stream.resume(self._clock())

    def deadline(self) -> float | None:
        """When to ask `stalled` next, by the attempt's clock."""
        return self.stream.deadline()

    def stalled(self) -> bool:
        """Whether a limit of time is over, which ends the stream; then call `finish`."""
        self.stream.stall(self._clock())
        return self.stream.done

    # How it ends. Each may be called at any time; the first decides.

    async def finish(self) -> StreamOutcome | None:
        """The body ended, or nothing more needs to be read of it."""
        if not self._over and self._failure is None:
            self.stream.finish(self._clock())
        await self.aclose()
        return self.stream.outcome

    async def refuse(self, body: bytes) -> None:
        """The status was that of an error, and *body* came with it."""
        from limiter_wire.providers import classify  # noqa: PLC0415  # loaded when a call fails

        if not self._over:
            failure = classify(self.provider, status=self.status, headers=self.headers, body=body)
            self._failure = failure
            fault = ProviderFault(
                status=failure.status,
                code=failure.code or None,
                message=failure.message,
                retry_after=failure.retry_after,
            )
            if self.committed:  # the rest of an answer was asked for, and is not to be had now
                self.stream.interrupt(self._clock())
            else:
                self.stream.fail(fault, self._clock())
        await self.aclose()

    async def fail(self, error: BaseException) -> None:
        """The transport failed, or the caller did; the kind of *error* says which."""
        if not self._over:
            begun = self.stream.statistics.bytes > 0
            failure = broken(self.provider, error, begun=begun)
            if failure is None:
                self.stream.cancel(self._clock())
            elif self.stream.interrupt(self._clock()) is StreamOutcome.INTERRUPTED:
                self._failure = failure
        await self.aclose()

    async def cancel(self) -> None:
        """The consumer wants no more."""
        if not self._over:
            self.stream.cancel(self._clock())
        await self.aclose()

    async def aclose(self) -> None:
        """Release the connection and settle; what was not ended is cancelled. Once."""
        if self._over:
            return
        self._over = True
        if self._failure is None:
            self.stream.cancel(self._clock())
        await shielded(self._close())

    async def settle(self) -> None:
        """Tell the lease how it ended; once."""
        if self._settled or self.lease is None:
            return
        self._settled = True
        await shielded(self._settle(self.lease, self.report()))

    # What is known.

    @property
    def refused(self) -> bool:
        """Whether the status is not one of success."""
        return self.status is not None and not 200 <= self.status < 300  # noqa: PLR2004  # of HTTP

    @property
    def done(self) -> bool:
        """Whether nothing more needs to be read."""
        return self._over or self.stream.done

    @property
    def committed(self) -> bool:
        """Whether content was delivered: from here on another attempt would repeat it."""
        return self.stream.committed

    @property
    def failure(self) -> "Failure | None":
        """What went wrong, understood; None while it goes on, and when the answer is whole."""
        if self._failure is not None:
            return self._failure
        fault, outcome = self.stream.fault, self.stream.outcome
        if fault is not None:
            return judge(self.provider, fault)
        return None if outcome is None else ended(self.provider, outcome)

    @property
    def outcome(self) -> Outcome:
        """What to settle with: the refusal's, the fault's, or what the stream's end stands for."""
        if self._failure is not None:
            return self._failure.outcome
        if self.stream.fault is not None:
            return judge(self.provider, self.stream.fault).outcome
        return self.stream.category or Outcome.CANCELLED

    @property
    def usage(self) -> Usage:
        """The tokens as they are reported."""
        return usage_to_report(self.stream, self._input_tokens)

    @property
    def retry_after(self) -> float | None:
        """The seconds that the provider asked to wait."""
        failure = self.failure
        return None if failure is None else failure.retry_after

    def report(self) -> Report:
        """What the settle says: no tokens of a call that its provider did not serve."""
        free = unserved(self._failure) and not self.committed
        return report(
            self.outcome,
            Usage() if free else self.usage,
            self.stream.statistics,
            retry_after=self.retry_after,
            headers=self.headers,
            failure=self.failure,
        )

    def error(self) -> CallFailed | None:
        """The exception for how it ended, None when the answer is whole or goes on."""
        return self.stream.error(
            resource=self.resource,
            request_id=self.request_id,
            provider_request_id=self.provider_request_id,
            failure=self.failure,
        )

    # How it works.

    def _next_renewal(self) -> float:
        if self.lease is None:
            return float("inf")
        return self._clock() + self.lease.expires_in / 2

    def _tell_early(self) -> None:
        """A probe that answers has proved what it was sent for."""
        self._told_early = True
        assert self.lease is not None
        lease, ttft = self.lease, self.stream.statistics.time_to_first_token
        self._aside.do(lambda: self._quietly(lambda: lease.answering(ttft)))

    def _renew(self) -> None:
        """A long stream keeps its lease alive."""
        self._renew_at = self._next_renewal()
        lease = self.lease
        if lease is not None:
            lease.account(self.usage)
            self._aside.do(lambda: self._quietly(lease.renew))

    async def _close(self) -> StreamOutcome | None:
        release, self._release = self._release, None
        try:
            if release is not None:
                await release()
        except Exception as error:  # noqa: BLE001  # a transport may raise anything on its way out
            _log.debug("closing a connection failed: %s", type(error).__name__)
        finally:
            await self._aside.finished()
            if self._settles:
                await self.settle()
        return self.stream.outcome

    async def _settle(self, lease: Lease, told: Report) -> Settled | None:
        lease.observed(
            told.headers,
            latency=told.latency,
            ttft=told.ttft,
            retry_after=told.retry_after,
            cause=told.cause,
            spent=told.spent,
        )
        lease.account(told.usage)
        settled: Settled | None = await self._quietly(lambda: lease.settle(told.outcome))
        return settled

    async def _quietly(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """The caller's result matters more than our books: an unsettled lease expires."""
        try:
            return await work()
        except SluicegateError as error:
            _log.warning("a report on %s failed: %s", self.resource, error)
            return None
