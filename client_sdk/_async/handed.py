"""A lease that was handed out here, of a block that this process holds."""

import uuid
from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace

from client_sdk._async.lease import Lease
from client_sdk.blocks import Block, Ending
from client_sdk.outcomes import cause_of, limits_told, report_of
from limiter_wire import (
    Cause,
    Granted,
    Meter,
    Outcome,
    Provenance,
    Renewed,
    Settled,
    SpentLimit,
    Usage,
)

if TYPE_CHECKING:
    from client_sdk._async.prefetch import Prefetch

_UNUSED = Settled()


class HandedLease(Lease):
    """Budget of one call. Nothing of it travels: what it used is told with all of its block, so
    its id says nothing to other processes.
    """

    # What nobody sets is as it is in any lease, without the time that setting it takes.
    _usage: Usage | None = None
    _cost_usd: float | None = None
    _retry_after: float | None = None
    _cause: Cause | None = None
    _latency: float | None = None
    _ttft: float | None = None
    _headers: dict[str, str] | None = None
    _spent: SpentLimit | None = None
    _estimated: float | None = None
    _told_more = _over = False

    def __init__(self, prefetch: "Prefetch", block: Block, tokens: int) -> None:
        self._prefetch, self._block, self._tokens = prefetch, block, tokens

    @property
    def settled(self) -> Settled | None:  # type: ignore[override]  # made when somebody looks
        """What has moved, once the call is over."""
        return _settled(self._tokens, self._usage) if self._over else None

    @cached_property
    def resource(self) -> str:  # type: ignore[override]  # made when somebody looks
        """The resource."""
        return self._block.resource

    @cached_property
    def request_id(self) -> str:  # type: ignore[override]  # made when somebody looks
        """A name of its own, which the service does not know."""
        return uuid.uuid4().hex

    @cached_property
    def granted(self) -> Granted:
        """What the service would have answered, as far as it is known here."""
        charged: dict[str, float] = {Meter.REQUESTS: 1, Meter.TOKENS: self._tokens}
        return self._prefetch.name(self, charged)

    @property
    def _given(self) -> Granted:  # type: ignore[override]  # made when somebody looks
        return self.granted

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
        """Remember how the call went, for the report on its block."""
        self._told_more = True
        super().observed(
            headers,
            latency=latency,
            ttft=ttft,
            retry_after=retry_after,
            cause=cause,
            spent=spent,
        )

    async def answering(self, ttft: float | None = None) -> Settled:
        """Remember when the provider began to answer."""
        self.observed(ttft=ttft)
        return Settled(settled=False)

    async def settle(self, outcome: Outcome = Outcome.SUCCESS) -> Settled:
        """End the call: what it has not used can be handed out again, and what it has used beyond
        its reservation is taken from the block. A second call answers the same.
        """
        over = self._over
        if not over:
            self._end(outcome)
        return replace(_settled(self._tokens, self._usage), already_settled=over)

    async def renew(self, ttl: float | None = None, *, usage: Usage | None = None) -> Renewed:
        """Let the lease behind the block live for another *ttl* seconds, and take what the call
        has used so far beyond its reservation. Raises as for any lease.
        """
        known = self._usage if usage is None else usage
        if known is not None:
            self._tokens += self._prefetch.more(
                self._block, known.input_tokens + known.output_tokens - self._tokens
            )
        return await self._prefetch.renew(self._block, ttl, self._tokens)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave(error)

    def leave(self, error: BaseException | None) -> None:
        """Settle on the way out of the block, unless that was done inside."""
        if self._over:
            return
        if error is None:
            self._end(Outcome.SUCCESS)
            return
        outcome, asked = report_of(error)
        self.observed(retry_after=asked, cause=cause_of(error))
        headers, spent = limits_told(error)
        self.observed(headers, spent=spent)
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        usage, self._over = self._usage, True
        if (
            usage is None
            or outcome is not Outcome.SUCCESS
            or self._told_more
            or self._cost_usd is not None
            or usage.provenance is Provenance.UNKNOWN
        ):
            self._end_telling(outcome)
        else:
            self._prefetch.end_well(self._block, self._tokens, usage)
        if "granted" in self.__dict__:
            self._prefetch.forget(self.granted.lease)

    def _end_telling(self, outcome: Outcome) -> None:
        ending = Ending(
            outcome=outcome,
            usage=self._usage,
            cost_usd=self._cost_usd,
            latency=self._latency,
            ttft=self._ttft,
            retry_after=self._retry_after,
            cause=self._cause,
        )
        told = None
        if self._headers is not None or self._spent is not None:
            told = self._headers, self._spent
        self._prefetch.end(self._block, self._tokens, ending, told)


def _settled(tokens: int, usage: Usage | None) -> Settled:
    if usage is None or usage.provenance is Provenance.UNKNOWN:
        return _UNUSED
    rest = tokens - usage.input_tokens - usage.output_tokens
    if rest > 0:
        return Settled(refunded={Meter.TOKENS: rest})
    return Settled(debited={Meter.TOKENS: -rest}) if rest else _UNUSED
