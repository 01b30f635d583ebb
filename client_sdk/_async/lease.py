"""A granted lease: what was reserved, and how to say what was used."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, partial
from types import TracebackType
from typing import Self

from client_sdk._answers import Given
from client_sdk._codec import SettleOp
from client_sdk._shell_async import Aside, Cancelled
from client_sdk.calibration import Estimate
from client_sdk.errors import SluicegateError
from client_sdk.outcomes import cause_of, limits_told, report_of, telling
from limiter_wire import (
    Cause,
    Granted,
    LimitState,
    Outcome,
    Provenance,
    Renewed,
    Settle,
    Settled,
    SpentLimit,
    Usage,
)

_log = logging.getLogger("sluicegate")


class Lease:
    """Budget that is reserved until it is settled.

    Entered with `async with`, it settles itself on the way out: with what `used` was told,
    and with the outcome that the exception tells, if one leaves the block.
    """

    # What nobody sets is as it is in any lease, without the time that setting it takes.
    _estimated: float | None = None
    _usage: Usage | None = None
    _cost_usd: float | None = None
    _retry_after: float | None = None
    _cause: Cause | None = None
    _latency: float | None = None
    _ttft: float | None = None
    _headers: dict[str, str] | None = None
    _spent: SpentLimit | None = None
    settled: Settled | None = None

    def __init__(
        self,
        granted: Given | Granted,
        resource: str,
        request_id: str,
        settle: Callable[[str, Settle], Awaitable[Settled]],
        renew: Callable[[str, float | None, Usage | None], Awaitable[Renewed]],
        estimate: Estimate | None = None,
    ) -> None:
        self._given, self.resource, self.request_id = granted, resource, request_id
        self._settle, self._renew = settle, renew
        if estimate is not None and not estimate.exact:  # an exact count teaches nothing
            self._estimated = estimate.raw

    @cached_property
    def granted(self) -> Granted:
        """What the service has answered. Raises ServiceFault when its limits cannot be read."""
        return self._given.whole() if isinstance(self._given, Given) else self._given

    @property
    def id(self) -> str:
        """The lease's id on the wire."""
        return self._given.lease

    @property
    def degraded(self) -> bool:
        """Whether it was granted without the whole view: by one replica without its store, or by
        this process without the service.
        """
        return self._given.degraded is True

    @property
    def charged(self) -> dict[str, float]:
        """What is reserved, by meter."""
        return self._given.charged

    @property
    def suggested_max_tokens(self) -> int | None:
        """A bound that about one answer in a hundred of this kind would exceed, and then be cut
        off at; None while the service has seen too few.
        """
        return self._given.suggested_max_tokens

    @property
    def limits(self) -> list[LimitState]:
        """Every limit of the chain, just after the grant."""
        return self.granted.limits

    @property
    def expires_in(self) -> float:
        """Seconds from the grant until the lease expires unless it is renewed."""
        return self._given.expires_in

    def used(
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
        cost_usd: float | None = None,
        provenance: Provenance = Provenance.FINAL,
    ) -> None:
        """Remember what the provider reported; it is sent when the lease settles.

        `input_tokens` contains the cached ones and `output_tokens` the reasoning ones. The
        last call counts.
        """
        self._usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            reasoning_tokens=reasoning_tokens,
            provenance=provenance,
        )
        self._cost_usd = cost_usd

    def account(self, usage: Usage | None) -> None:
        """Remember *usage* as it is, as `used` does; None says nothing."""
        if usage is not None:
            self._usage = usage

    def observed(
        self,
        headers: Mapping[str, str] | None = None,
        *,
        latency: float | None = None,
        ttft: float | None = None,
        retry_after: float | None = None,
        cause: Cause | None = None,
        spent: SpentLimit | None = None,
    ) -> None:
        """Remember how the call went, for the settle: the headers of the provider's answer (what
        they say about limits is sent, so that the fleet obeys it), the seconds that the call took
        and those to its first token, what the provider asked to wait, what is known of a
        failure, and which limit it says is spent. What is None stays as it was.
        """
        self._headers = telling(headers or {}) or self._headers
        self._latency = self._latency if latency is None else latency
        self._ttft = self._ttft if ttft is None else ttft
        self._retry_after = self._retry_after if retry_after is None else retry_after
        self._cause = self._cause if cause is None else cause
        self._spent = self._spent if spent is None else spent

    async def answering(self, ttft: float | None = None) -> Settled:
        """Say that the provider answers, before the call is over; the lease stays open."""
        report = Settle(lease=self.id, outcome=Outcome.SUCCESS, ttft=ttft, phase="first_token")
        return await self._settle(self.resource, report)

    async def settle(self, outcome: Outcome = Outcome.SUCCESS) -> Settled:
        """Replace the reservation by what `used` was told; without it the reservation stands.

        A second call answers the same. Raises LeaseExpired, UnknownLease,
        ServiceUnavailable.
        """
        self.settled = await self._settle(self.resource, self._report(outcome))
        return self.settled

    def _report(self, outcome: Outcome) -> SettleOp:
        return SettleOp(
            lease=self._given.lease,
            outcome=outcome,
            usage=self._usage,
            cost_usd=self._cost_usd,
            latency=self._latency,
            ttft=self._ttft,
            retry_after=self._retry_after,
            cause=self._cause,
            headers=self._headers,
            spent=self._spent,
            estimated_input_tokens=self._estimated or None,
        )

    async def renew(self, ttl: float | None = None, *, usage: Usage | None = None) -> Renewed:
        """Live for another *ttl* seconds (default: the pool's), and be charged for *usage* so
        far (default: what `used` was told) where it is more than is charged already.

        Saying the same twice charges once, and nothing goes back before the settle. Raises
        LeaseExpired, UnknownLease, ServiceUnavailable.
        """
        return await self._renew(self.id, ttl, self._usage if usage is None else usage)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.settled is not None:
            return
        outcome = Outcome.SUCCESS
        if error is not None:
            outcome, asked = report_of(error)
            headers, spent = limits_told(error)
            self.observed(headers, retry_after=asked, cause=cause_of(error), spent=spent)
        report = self._report(outcome)
        try:
            self.settled = await self._settle(self.resource, report)
        except Cancelled:  # it is reported all the same, and counts once however often that is
            Aside().do(partial(self._settle_aside, report))
            raise
        except SluicegateError as failure:
            self._is_unsettled(failure)

    async def _settle_aside(self, report: SettleOp) -> None:
        try:
            self.settled = await self._settle(self.resource, report)
        except SluicegateError as failure:
            self._is_unsettled(failure)

    def _is_unsettled(self, failure: SluicegateError) -> None:
        """The caller's result matters more than our books: an unsettled lease expires."""
        _log.warning("lease of %s was not settled: %s", self.resource, failure)
