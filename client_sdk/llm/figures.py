"""The figures of all calls of one client. Threads may share it."""

import threading
from collections import Counter
from collections.abc import Mapping

import msgspec

from client_sdk.streaming import (
    AggregatedStatistics,
    Spread,
    StatisticsCollector,
    StreamAccumulator,
)
from client_sdk.streaming.statistics import Distribution
from limiter_wire import CallStats, CostStats, Provenance, Settled, Stats, Usage


class ClientStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of a client were like.

    `outcomes` counts finished calls by how they ended: a stream's outcome, or `refused` where
    the limiter said no. `failure_rate` is the share that ended without a whole answer, those
    that the caller cancelled left out. `latency` and `time_to_first_token` are seconds, over
    retries and pauses. `cost_usd` is what the limiter charged, None where it counts no money.
    `streams` has the figures of single requests.
    """

    calls: int
    succeeded: int
    failed: int
    cancelled: int
    refused: int
    retries: int
    fallbacks: int
    recoveries: int
    failure_rate: float
    outcomes: Mapping[str, int]
    latency: Spread | None
    time_to_first_token: Spread | None
    input_tokens: int
    output_tokens: int
    unknown_usage: int
    cost_usd: float | None
    streams: AggregatedStatistics


class FleetStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of a client were like, and what happened in the fleet on the same resources.

    `since` is how many seconds `fleet` (each resource, all tenants), `tenants` and `costs` reach
    back. `degraded`: the service or its store did not answer, and they are missing.
    """

    client: ClientStatistics
    since: float
    fleet: list[CallStats]
    tenants: list[CallStats]
    costs: list[CostStats]
    degraded: bool


def beside(client: ClientStatistics, told: Stats | None, resources: set[str]) -> FleetStatistics:
    """Figures of a client beside those of *resources* among what the service has *told*."""
    told = told or Stats(since=0.0)
    return FleetStatistics(
        client=client,
        since=told.since,
        fleet=[each for each in told.resources if each.resource in resources],
        tenants=[each for each in told.tenants if each.resource in resources],
        costs=[each for each in told.costs if each.resource in resources],
        degraded=told.degraded,
    )


class Figures:
    """Adds up calls and requests."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._outcomes: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._latency, self._ttft = Distribution(), Distribution()
        self._streams = StatisticsCollector()
        self._cost: float | None = None

    def request(self, stream: StreamAccumulator) -> None:
        """One request is over."""
        with self._turn:
            stream.collect(self._streams)

    def count(self, what: str) -> None:
        """One more retry, fallback or recovery."""
        with self._turn:
            self._counts[what] += 1

    def spent(self, reserved: Mapping[str, float], settled: Settled | None) -> None:
        """What a lease cost in the end, if its limits count money."""
        if "cost_usd" not in reserved:
            return
        back = settled.refunded.get("cost_usd", 0.0) if settled else 0.0
        more = settled.debited.get("cost_usd", 0.0) if settled else 0.0
        with self._turn:
            self._cost = (self._cost or 0.0) + reserved["cost_usd"] - back + more

    def call(
        self, ending: str, *, whole: bool, took: float, ttft: float | None, usage: Usage | None
    ) -> None:
        """A call is over."""
        with self._turn:
            self._outcomes[ending] += 1
            self._counts["succeeded"] += whole
            self._latency.add(took)
            if ttft is not None:
                self._ttft.add(ttft)
            if usage is not None:
                self._counts["unknown_usage"] += usage.provenance is Provenance.UNKNOWN
                self._counts["input_tokens"] += usage.input_tokens
                self._counts["output_tokens"] += usage.output_tokens

    def snapshot(self) -> ClientStatistics:
        """The figures up to now."""
        with self._turn:
            counts, calls = self._counts, self._outcomes.total()
            cancelled = self._outcomes["cancelled"]
            failed = calls - counts["succeeded"] - cancelled
            judged = calls - cancelled
            return ClientStatistics(
                calls=calls,
                succeeded=counts["succeeded"],
                failed=failed,
                cancelled=cancelled,
                refused=self._outcomes["refused"],
                retries=counts["retries"],
                fallbacks=counts["fallbacks"],
                recoveries=counts["recoveries"],
                failure_rate=failed / judged if judged else 0.0,
                outcomes={name: n for name, n in sorted(self._outcomes.items()) if n},
                latency=self._latency.spread(),
                time_to_first_token=self._ttft.spread(),
                input_tokens=counts["input_tokens"],
                output_tokens=counts["output_tokens"],
                unknown_usage=counts["unknown_usage"],
                cost_usd=self._cost,
                streams=self._streams.snapshot(),
            )
