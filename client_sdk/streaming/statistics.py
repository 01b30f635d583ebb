"""Figures of one stream and of many. Times are seconds, latencies of processing milliseconds.

The time of the consumer is in `duration` only. Where OpenTelemetry has a name for a figure,
`otel()` gives it under that name.
"""

import math
from collections import Counter
from collections.abc import Mapping

import msgspec

from client_sdk.streaming.terminal import StreamOutcome
from limiter_wire import Provenance, Usage

FOLD_EVERY = 4096
_SHARES = (0.1, 0.5, 0.9)
_STEPS = 32  # buckets per power of two: quantiles are exact to about one percent


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution in seven numbers."""

    count: int
    min: float
    p10: float
    median: float
    mean: float
    p90: float
    max: float


class Distribution:
    """Collects values in bounded memory.

    The last few thousand are kept in `recent`, and quantiles are exact; before, they are
    counted in logarithmic buckets. Who appends to `recent` itself calls `fold` in time.
    """

    __slots__ = ("buckets", "count", "max", "min", "recent", "sum", "zeros")

    def __init__(self) -> None:
        self.recent: list[float] = []
        self.buckets: Counter[int] = Counter()
        self.zeros = self.count = 0
        self.sum = 0.0
        self.min, self.max = math.inf, 0.0

    def add(self, value: float) -> None:
        """Take one value."""
        self.recent.append(value)
        self.fold()

    def add_zeros(self, count: int) -> None:
        """Take the value zero *count* times."""
        self.zeros += count

    def merge(self, other: "Distribution") -> None:
        """Take all values of *other*."""
        for value in other.recent:
            self.add(value)
        self.buckets.update(other.buckets)
        self.zeros += other.zeros
        self.count += other.count
        self.sum += other.sum
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)

    def spread(self) -> Spread | None:
        """The numbers, None when there is no value."""
        count = self.zeros + self.count + len(self.recent)
        if not count:
            return None
        recent = sorted(self.recent)
        if self.buckets:
            p10, median, p90 = self._weighted(recent, count)
        else:
            p10, median, p90 = (self._at(recent, count, share) for share in _SHARES)
        return Spread(
            count=count,
            min=0.0 if self.zeros else max(0.0, min([self.min, *recent[:1]])),
            p10=p10,
            median=median,
            mean=self.total() / count,
            p90=p90,
            max=max([0.0, self.max, *recent[-1:]]),
        )

    def total(self) -> float:
        """The sum of all values."""
        return self.sum + math.fsum(self.recent)

    def fold(self) -> None:
        """Count what was kept, if that is much."""
        if len(self.recent) < FOLD_EVERY:
            return
        values = [value for value in self.recent if value > 0]
        self.zeros += len(self.recent) - len(values)
        self.recent.clear()
        if values:
            self.count += len(values)
            self.sum += math.fsum(values)
            self.min, self.max = min(self.min, *values), max(self.max, *values)
            self.buckets.update(math.floor(math.log2(value) * _STEPS) for value in values)

    def _at(self, recent: list[float], count: int, share: float) -> float:
        """The smallest value that *share* of all values do not exceed."""
        rank = max(1, math.ceil(share * count)) - self.zeros
        return max(0.0, recent[rank - 1]) if rank > 0 else 0.0

    def _weighted(self, recent: list[float], count: int) -> list[float]:
        """The same for all shares, where values are counted in buckets."""
        pairs = [(0.0, self.zeros), *((value, 1) for value in recent)]
        pairs += [(2.0 ** ((key + 0.5) / _STEPS), n) for key, n in self.buckets.items()]
        pairs.sort()
        ranks = [max(1, math.ceil(share * count)) for share in _SHARES]
        found: list[float] = []
        seen = 0
        for value, weight in pairs:
            seen += weight
            while len(found) < len(ranks) and seen >= ranks[len(found)]:
                found.append(max(0.0, value))
        return found


class StreamStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one stream was like.

    `time_to_first_token` runs to the first content of any kind, `time_to_first_answer` to
    the first that is not reasoning. `gaps` are the times between pieces of content, pieces
    that arrive together being zero apart. `chunks` counts reads of the transport, `events`
    those of the protocol. `flags` names what was tolerated.
    """

    outcome: StreamOutcome | None
    duration: float
    held: float
    time_to_first_byte: float | None
    time_to_first_token: float | None
    time_to_first_answer: float | None
    gaps: Spread | None
    tokens_per_second: float | None
    usage: Usage
    heartbeats: int
    bytes: int
    chunks: int
    events: int
    content_events: int
    processing_latency: Spread | None
    invalid_utf8: int
    ignored_frames: int
    unknown_events: int
    flags: tuple[str, ...]

    def otel(self) -> dict[str, float]:
        """The figures that OpenTelemetry has names for."""
        found = {"gen_ai.client.operation.duration": self.duration}
        if self.time_to_first_token is not None:
            found["gen_ai.client.operation.time_to_first_chunk"] = self.time_to_first_token
        if self.gaps is not None:
            found["gen_ai.client.operation.time_per_output_chunk"] = self.gaps.mean
        if self.usage.provenance is not Provenance.UNKNOWN:
            found["gen_ai.usage.input_tokens"] = self.usage.input_tokens
            found["gen_ai.usage.output_tokens"] = self.usage.output_tokens
        return found


def tokens_per_second(usage: Usage, seconds: float) -> float | None:
    """The speed of generation behind the first token, None when the count is not known."""
    if usage.provenance is Provenance.UNKNOWN or usage.output_tokens < 2 or not seconds:  # noqa: PLR2004  # one interval
        return None
    return (usage.output_tokens - 1) / seconds


class AggregatedStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What many streams were like together.

    `failure_rate` counts streams that ended without a whole answer, those that the caller
    cancelled left out.
    """

    streams: int
    outcomes: Mapping[str, int]
    failure_rate: float
    duration: Spread | None
    time_to_first_byte: Spread | None
    time_to_first_token: Spread | None
    time_to_first_answer: Spread | None
    gaps: Spread | None
    tokens_per_second: Spread | None
    processing_latency: Spread | None
    input_tokens: int
    output_tokens: int
    unknown_usage: int
    heartbeats: int
    bytes: int
    chunks: int


_RUNNING = "running"
_FAILED = {outcome for outcome in StreamOutcome if not outcome.whole}
_TIMES = (
    "duration",
    "time_to_first_byte",
    "time_to_first_token",
    "time_to_first_answer",
    "tokens_per_second",
)


class StatisticsCollector:
    """Adds up the statistics of streams, in bounded memory."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._spreads = {name: Distribution() for name in (*_TIMES, "gaps", "processing_latency")}

    def add(
        self,
        statistics: StreamStatistics,
        *,
        gaps: Distribution | None = None,
        processing_latency: Distribution | None = None,
    ) -> None:
        """Take the figures of one stream; its distributions are merged where they are given."""
        self._outcomes[statistics.outcome or _RUNNING] += 1
        for name in _TIMES:
            value = getattr(statistics, name)
            if value is not None:
                self._spreads[name].add(value)
        for name, given in (("gaps", gaps), ("processing_latency", processing_latency)):
            if given is not None:
                self._spreads[name].merge(given)
        for name in ("heartbeats", "bytes", "chunks"):
            self._counts[name] += getattr(statistics, name)
        usage = statistics.usage
        self._counts["unknown_usage"] += usage.provenance is Provenance.UNKNOWN
        self._counts["input_tokens"] += usage.input_tokens
        self._counts["output_tokens"] += usage.output_tokens

    def snapshot(self) -> AggregatedStatistics:
        """The figures up to now."""
        neutral = {StreamOutcome.CANCELLED, _RUNNING}
        judged = {k: n for k, n in self._outcomes.items() if k not in neutral}
        bad = sum(n for k, n in judged.items() if k in _FAILED)
        spreads = {name: spread.spread() for name, spread in self._spreads.items()}
        return AggregatedStatistics(
            streams=self._outcomes.total(),
            outcomes={str(k): n for k, n in sorted(self._outcomes.items())},
            failure_rate=bad / sum(judged.values()) if judged else 0.0,
            duration=spreads["duration"],
            time_to_first_byte=spreads["time_to_first_byte"],
            time_to_first_token=spreads["time_to_first_token"],
            time_to_first_answer=spreads["time_to_first_answer"],
            gaps=spreads["gaps"],
            tokens_per_second=spreads["tokens_per_second"],
            processing_latency=spreads["processing_latency"],
            input_tokens=self._counts["input_tokens"],
            output_tokens=self._counts["output_tokens"],
            unknown_usage=self._counts["unknown_usage"],
            heartbeats=self._counts["heartbeats"],
            bytes=self._counts["bytes"],
            chunks=self._counts["chunks"],
        )
