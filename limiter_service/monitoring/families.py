"""Every metric: its name, kind, labels and meaning, and how many series it can have at most.

The reference page is written from this table, and the registry is made from it. Labels that
callers choose are bounded (engine/names): whoever comes when as many are told apart as can be is
counted under `*`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from limiter_service.engine.tally import MOST_DECISIONS, MOST_RESOURCES

MOST_LIMITS = 400
MOST_TENANTS = 50
MOST_POOLS = 50
MOST_SPENDERS = 2000
"""Pairs of a tenant and a resource."""

_BOUNDS = {
    "resource": MOST_RESOURCES + 1,
    "limit": MOST_LIMITS + 1,
    "tenant": MOST_TENANTS + 1,
    "pool": MOST_POOLS + 1,
    "meter": 6,
    "direction": 2,
    "outcome": 16,
    "difference": 2,
    "state": 5,
    "mode": 3,
    "reason": 12,
    "result": 4,
    "answer": 2,
    "code": 30,
    "script": 32,
    "version": 1,
}

_QUICK = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_WAITS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)
_CALLS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_RATIOS = (0.25, 0.5, 0.75, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 4)

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `most` bounds its series where labels do not come in all combinations."""

    name: str
    kind: Kind
    text: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()
    most: int | None = None

    @property
    def shown(self) -> str:
        """The name as Prometheus has it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    @property
    def bound(self) -> int:
        """How many series it can have at most."""
        series = self.most
        if series is None:
            series = 1
            for label in self.labels:
                series *= _BOUNDS[label]
        return series * (len(self.buckets) + 3 if self.kind == "histogram" else 1)


def _f(  # a row of the table
    name: str,
    kind: Kind,
    labels: str,
    text: str,
    buckets: tuple[float, ...] = (),
    most: int | None = None,
) -> Family:
    return Family(
        name=f"sluicegate_{name}",
        kind=kind,
        text=text,
        labels=tuple(labels.split()),
        buckets=buckets,
        most=most,
    )


CHAPTERS: dict[str, tuple[Family, ...]] = {
    "Decisions": (
        _f("decisions", "counter", "resource code reason limit",
           "Answers to acquires at this replica, by what was decided, why, and by which limit",
           most=MOST_DECISIONS + MOST_RESOURCES + _BOUNDS["code"]),
        _f("acquire_seconds", "histogram", "answer",
           "Time to answer an acquire that did not wait, by whether it was granted", _QUICK),
        _f("tenant_decisions", "counter", "tenant code",
           "Answers to acquires of tenants that the pools file names"),
        _f("trial_differences", "counter", "limit difference",
           "Requests that a shadow limit would have answered otherwise"),
    ),
    "Limits": (
        _f("limit_in_force", "gauge", "limit meter", "The limit that is in force, per its period",
           most=MOST_LIMITS),
        _f("limit_configured", "gauge", "limit meter", "The limit that the pools file says",
           most=MOST_LIMITS),
        _f("limit_learned", "gauge", "limit meter",
           "The limit that the provider has stated; absent where it states what the file says",
           most=MOST_LIMITS),
        _f("limit_held", "gauge", "limit meter", "The limit that an operator holds by hand",
           most=MOST_LIMITS),
        _f("limit_remaining", "gauge", "limit meter",
           "What remains of a limit now; negative after calls that used more than they reserved",
           most=MOST_LIMITS),
        _f("limit_remaining_ratio", "gauge", "limit meter",
           "The share of its capacity that remains of a limit now", most=MOST_LIMITS),
        _f("limit_rate_ratio", "gauge", "limit meter",
           "The share of its rate that is in force of a limit whose rate is found by trial",
           most=MOST_LIMITS),
        _f("budget_spent_ratio", "gauge", "limit",
           "Share of a budget that is spent or held, when it was last looked at"),
        _f("budget_exhausted_in_seconds", "gauge", "limit",
           "Seconds until a budget is spent at the present pace; infinite when it lasts"),
    ),
    "Queue": (
        _f("queue_depth", "gauge", "pool", "Callers that wait, in the whole fleet"),
        _f("queue_max_waiters", "gauge", "pool", "Callers that may wait"),
        _f("queue_oldest_seconds", "gauge", "pool",
           "How long the first of a line has waited, of all lines the longest"),
        _f("queue_wait_seconds", "histogram", "resource",
           "Time in the queue of requests that were granted", _WAITS),
        _f("tenant_queue_wait_seconds", "histogram", "tenant",
           "The same of tenants that the pools file names", _WAITS),
        _f("queue_wait_prediction_ratio", "histogram", "resource",
           "Actual wait over the median predicted when the request was enqueued", _RATIOS),
        _f("queue_waits_beyond_forecast", "counter", "resource",
           "Waits that were longer than the predicted 90th percentile"),
    ),
    "Leases": (
        _f("leases_in_flight", "gauge", "resource",
           "Live leases in the whole fleet, where a concurrency limit counts them"),
        _f("leases_expired", "counter", "resource",
           "Leases that this replica has granted and nobody has settled in time"),
        _f("blocks_held", "gauge", "pool meter",
           "What workers hold in blocks and have not spent, in the whole fleet"),
        _f("reports", "counter", "resource outcome",
           "Calls that were settled at this replica, by outcome"),
        _f("reserved", "counter", "resource meter", "What grants have reserved"),
        _f("refunded", "counter", "resource meter", "What settles gave back of it"),
        _f("debited", "counter", "resource meter", "What settles took beyond it"),
        _f("estimate_ratio", "histogram", "resource",
           "Input tokens of a call over the caller's estimate before any correction", _RATIOS),
    ),
    "Calls of providers": (
        _f("provider_rate_limited", "counter", "resource",
           "Calls that the provider refused with 429 although they had a lease"),
        _f("provider_latency_seconds", "histogram", "resource",
           "Time of a call, as workers have told it", _CALLS),
        _f("provider_ttft_seconds", "histogram", "resource",
           "Time to the first token, as workers have told it", _CALLS),
        _f("tokens", "counter", "resource direction", "Tokens that settled calls have used"),
        _f("cost_usd", "counter", "resource", "US dollars that settled calls have cost"),
        _f("tenant_cost_usd", "counter", "tenant resource",
           "The same by tenant, of those that the pools file names",
           most=MOST_SPENDERS + 1),
    ),
    "Breakers": (
        _f("breaker_state", "gauge", "resource state",
           "1 for the state that a circuit is in, an override considered"),
        _f("breaker_held", "gauge", "resource mode",
           "1 while an operator holds a circuit by hand"),
        _f("breaker_failure_ratio", "gauge", "resource",
           "Share of calls in the window of a circuit: those that failed"),
        _f("breaker_slow_ratio", "gauge", "resource",
           "Share of calls in the window of a circuit: those with a slow first token"),
        _f("breaker_throttle_ratio", "gauge", "resource",
           "Share of calls in the window of a circuit: those that the provider throttled"),
        _f("breaker_retry_after_seconds", "gauge", "resource reason",
           "Until when calls are refused; absent while they pass or nobody knows"),
        _f("breaker_transitions", "counter", "resource from to reason",
           "Changes of state in the whole fleet, the same at every replica",
           most=(MOST_RESOURCES + 1) * 40),
        _f("breaker_would_open", "counter", "resource reason",
           "Openings that an override has prevented, in the whole fleet"),
        _f("breaker_probes", "counter", "resource result",
           "Probes that reported to this replica, by what they said"),
        _f("breaker_probes_lost", "counter", "resource",
           "Probes that did not report in time, in the whole fleet"),
        _f("breaker_stale_reports", "counter", "resource",
           "Reports to this replica of calls from before the circuit last changed"),
    ),
    "Store": (
        _f("store_call_seconds", "histogram", "script",
           "Time of a script call, from the call to its answer", _QUICK),
        _f("store_failures", "counter", "script",
           "Script calls without an answer in time, or with an error"),
        _f("store_available", "gauge", "", "1 when the store answered the last call"),
        _f("degraded", "gauge", "pool mode",
           "1 while the store of a pool is lost, by what is done about it", most=MOST_POOLS + 1),
        _f("degraded_replicas", "gauge", "pool",
           "Replicas that share the limits of a pool when its store is lost; 0: no share"),
        _f("degraded_uncharged", "gauge", "pool",
           "Leases and reports that the store has not heard of yet"),
        _f("degraded_grants", "counter", "pool",
           "Leases that were granted while the store was lost"),
        _f("degraded_charged", "counter", "pool", "Leases of these that have been charged since"),
    ),
    "Access": (
        _f("callers_refused", "counter", "reason",
           "Callers that this replica has turned away for their API key, or for want of one"),
    ),
    "Process": (
        _f("build_info", "gauge", "version", "The version that runs"),
        _f("config_pools", "gauge", "", "Pools of the configuration in force"),
        _f("config_refused", "gauge", "",
           "1 when the pools file was refused and an older text of it is in force"),
        _f("connections_open", "gauge", "",
           "Connections that this replica keeps, channels among them"),
        _f("connections_closed", "counter", "reason",
           "Connections that this replica has closed as one too many, or for their manners"),
        _f("channels_open", "gauge", "", "Workers that are connected over a channel"),
        _f("callers_held", "gauge", "", "Callers that this replica holds while they wait"),
    ),
}  # fmt: skip
"""The metrics, in the order of the page."""

FAMILIES = {each.name: each for chapter in CHAPTERS.values() for each in chapter}

BOUND = sum(each.bound for each in FAMILIES.values())
"""How many series one replica can have at most."""


def family(name: str) -> Family:
    """The metric `sluicegate_` *name*."""
    return FAMILIES[f"sluicegate_{name}"]


def counter(name: str, registry: CollectorRegistry) -> Counter:
    """A counter of the table."""
    of = family(name)
    return Counter(of.name, of.text, of.labels, registry=registry)


def gauge(name: str, registry: CollectorRegistry) -> Gauge:
    """A gauge of the table."""
    of = family(name)
    return Gauge(of.name, of.text, of.labels, registry=registry)


def counted(name: str, counts: Iterable[tuple[Sequence[object], float]]) -> CounterMetricFamily:
    """A counter of the table with the values that it has now."""
    of = family(name)
    found = CounterMetricFamily(of.name, of.text, labels=of.labels)
    for values, count in list(counts):
        found.add_metric([str(value) for value in values], count)
    return found


def measured(name: str, values: Iterable[tuple[Sequence[str], float]]) -> GaugeMetricFamily:
    """A gauge of the table with the values that it has now."""
    of = family(name)
    found = GaugeMetricFamily(of.name, of.text, labels=of.labels)
    for named, value in list(values):
        found.add_metric(list(named), value)
    return found


def all_families() -> Iterator[Family]:
    """Every metric, in the order of the page."""
    for chapter in CHAPTERS.values():
        yield from chapter
