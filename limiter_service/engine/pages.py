"""What calls have come to since the books were last told of them. Pure.

Nearly every call says the same to every book. It is written down once, as numbers that add up, so
that a thousand calls are told like one.
"""

from functools import lru_cache

import msgspec

from limiter_service.engine.shape import Taken
from limiter_wire import Ended, Granted, Outcome, Settle, Settled, Usage

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, float]).decode


class Grants:
    """What a tenant was granted on a resource."""

    __slots__ = ("again", "count", "reserved", "resource", "tenant")

    def __init__(self, resource: str, tenant: str) -> None:
        self.resource, self.tenant = resource, tenant
        self.count = 0
        """Calls: of a block those that have ended."""
        self.reserved: dict[bytes, int] = {}
        """How many leases and blocks were charged the same, by what that is (`amounts`)."""
        self.again: dict[bytes, int] = {}
        """Likewise leases that were settled when they were asked for again."""

    def grant(self, answer: Granted | Taken) -> None:
        """A call was granted."""
        self.count += 1
        told = answer.told if type(answer) is Taken else _encode(answer.charged)
        into = self.again if answer.settled else self.reserved
        into[told] = into.get(told, 0) + 1

    def lend(self, answer: Granted) -> None:
        """A block was lent."""
        told = _encode(answer.charged)
        self.reserved[told] = self.reserved.get(told, 0) + 1


class Ends:
    """How calls of a tenant on a resource have ended. Times are seconds."""

    __slots__ = (
        "cached",
        "debited",
        "debited_tokens",
        "dollars",
        "estimates",
        "inputs",
        "late",
        "latencies",
        "outputs",
        "reasoning",
        "refunded",
        "refunded_tokens",
        "reports",
        "resource",
        "tenant",
        "ttfts",
        "unpriced",
    )

    def __init__(self, resource: str, tenant: str) -> None:
        self.resource, self.tenant = resource, tenant
        self.reports: dict[Outcome, int] = {}
        self.late: dict[Outcome, int] = {}
        """Reports on leases that had expired."""
        self.inputs = self.outputs = self.cached = self.reasoning = self.unpriced = 0
        self.dollars: list[float] = []
        self.latencies: list[float] = []
        self.ttfts: list[float] = []
        self.estimates: list[float] = []
        """Input over what the caller had estimated."""
        self.refunded: dict[str, float] = {}
        self.debited: dict[str, float] = {}
        self.refunded_tokens = self.debited_tokens = 0.0

    def settle(
        self, report: Settle, usage: Usage | None, dollars: float | None, answer: Settled | None
    ) -> None:
        """A call has ended, and its settle has moved something, or came too late (None)."""
        into = self.late if answer is None else self.reports
        into[report.outcome] = into.get(report.outcome, 0) + 1
        if report.latency is not None:
            self.latencies.append(report.latency)
        if report.ttft is not None:
            self.ttfts.append(report.ttft)
        if usage is not None and report.estimated_input_tokens:
            self.estimates.append(usage.input_tokens / report.estimated_input_tokens)
        self._use(1, usage, dollars)
        if answer is not None:
            self.move(answer)

    def end(self, ended: Ended, usage: Usage | None, dollars: float | None) -> None:
        """Calls of a block have ended alike."""
        self.reports[ended.outcome] = self.reports.get(ended.outcome, 0) + ended.calls
        self.latencies += ended.latencies
        self.ttfts += ended.ttfts
        self._use(ended.calls, usage, dollars)

    def move(self, answer: Settled) -> None:
        """Something came back of what was reserved, or was added."""
        if answer.refunded:
            _add(self.refunded, answer.refunded)
            self.refunded_tokens += tokens_of(answer.refunded)
        if answer.debited:
            _add(self.debited, answer.debited)
            self.debited_tokens += tokens_of(answer.debited)

    def _use(self, calls: int, usage: Usage | None, dollars: float | None) -> None:
        if usage is not None:
            self.inputs += usage.input_tokens
            self.outputs += usage.output_tokens
            self.cached += usage.cache_read_tokens + usage.cache_write_tokens
            self.reasoning += usage.reasoning_tokens
            if dollars is None:
                self.unpriced += calls
        if dollars is not None:
            self.dollars.append(dollars)


@lru_cache(4096)
def amounts(charged: bytes) -> dict[str, float]:
    """What was charged, by meter."""
    return _decode(charged)


def tokens_of(by_meter: dict[str, float]) -> float:
    """Tokens among amounts by meter; limits on all of them count before those on a part."""
    both = by_meter.get("tokens")
    if both is None:
        return by_meter.get("input_tokens", 0.0) + by_meter.get("output_tokens", 0.0)
    return both


def _add(to: dict[str, float], by_meter: dict[str, float]) -> None:
    for meter, amount in by_meter.items():
        to[meter] = to.get(meter, 0.0) + amount
