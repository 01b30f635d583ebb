"""Prometheus metrics: every name in one place."""

import math
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from limiter_service.engine.names import REST, Names
from limiter_service.engine.outages import Outages
from limiter_service.engine.statistics import Wait
from limiter_service.engine.tally import Tally
from limiter_service.engine.witness import Witness
from limiter_wire import BreakerState, BreakerView, BudgetView, Usage

_WAITS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)
_RATIOS = (0.25, 0.5, 0.75, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 4)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, tally: Tally, witness: Witness, outages: Outages) -> None:
        self._registry = CollectorRegistry()
        self._name = Names(REST).of  # callers choose names
        self._breakers = Breakers(witness, tally)
        self._registry.register(Decisions(tally))
        self._registry.register(self._breakers)
        self._registry.register(Degraded(outages))
        self._waits = Histogram(
            "sluicegate_queue_wait_seconds",
            "Time in the queue of requests that were granted",
            ["resource"],
            buckets=_WAITS,
            registry=self._registry,
        )
        self._ratios = Histogram(
            "sluicegate_queue_wait_prediction_ratio",
            "Actual wait over the median predicted when the request was enqueued",
            ["resource"],
            buckets=_RATIOS,
            registry=self._registry,
        )

        self._cost = Counter(
            "sluicegate_cost_usd",
            "US dollars that settled calls have cost",
            ["resource"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "sluicegate_tokens",
            "Tokens that settled calls have used",
            ["resource", "direction"],
            registry=self._registry,
        )
        self._differences = Counter(
            "sluicegate_trial_differences",
            "Requests that a shadow limit would have answered otherwise",
            ["limit", "difference"],
            registry=self._registry,
        )
        self._budget_spent = Gauge(
            "sluicegate_budget_spent_ratio",
            "Share of a budget that is spent or held, when it was last looked at",
            ["limit"],
            registry=self._registry,
        )
        self._budget_lasts = Gauge(
            "sluicegate_budget_exhausted_in_seconds",
            "Seconds until a budget is spent at the present pace; infinite when it lasts",
            ["limit"],
            registry=self._registry,
        )
        self._spenders: dict[str, tuple[Counter, Counter, Counter]] = {}

    def differs(self, limits: Iterable[str], difference: str) -> None:
        """Count shadow limits that would have answered otherwise."""
        for limit in limits:
            self._differences.labels(self._name(limit), difference).inc()

    def spent(self, resource: str, usage: Usage | None, dollars: float | None) -> None:
        """Count what a settled call has used and cost."""
        found = self._spenders.get(resource)
        if found is None:  # looking a label up costs more than counting
            name = self._name(resource)
            inputs, outputs = (
                self._tokens.labels(name, "input"),
                self._tokens.labels(name, "output"),
            )
            found = self._cost.labels(name), inputs, outputs
            if name == resource:
                self._spenders[resource] = found
        cost, given, answered = found
        if dollars is not None:
            cost.inc(dollars)
        if usage is not None:
            given.inc(usage.input_tokens)
            answered.inc(usage.output_tokens)

    def budgets(self, pool: str, views: Iterable[BudgetView]) -> None:
        """Note budgets as they stand."""
        for view in views:
            name = self._name(f"{pool}/{view.name}")
            lasts = math.inf if view.exhausted_in is None else view.exhausted_in
            self._budget_spent.labels(name).set(view.spent / view.limit)
            self._budget_lasts.labels(name).set(lasts)

    def note_wait(self, wait: Wait) -> None:
        """Count one wait and how good its forecast was."""
        name = self._name(wait.resource)
        self._waits.labels(name).observe(wait.waited)
        if wait.predicted.p50 > 0:
            self._ratios.labels(name).observe(wait.waited / wait.predicted.p50)

    def render(self, breakers: Sequence[BreakerView]) -> bytes:
        """The text that Prometheus reads, with circuits as they are now."""
        self._breakers.now = breakers
        return generate_latest(self._registry)


class Decisions(Collector):
    """What this replica has answered, and what it was told."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """Counts since the process started."""
        yield _counter(
            "sluicegate_decisions",
            "Answers to acquires at this replica, by what was decided, why, and by which limit",
            ["resource", "code", "reason", "limit"],
            self._tally.decisions.items(),
        )
        yield _counter(
            "sluicegate_reports",
            "Calls that were settled at this replica, by outcome",
            ["resource", "outcome"],
            self._tally.reports.items(),
        )


class Breakers(Collector):
    """Circuits: as they are now, what has happened to them, and what became of reports.

    States and transitions are those of the fleet, the same at every replica.
    """

    def __init__(self, witness: Witness, tally: Tally) -> None:
        self._witness, self._tally = witness, tally
        self.now: Sequence[BreakerView] = ()

    def collect(self) -> Iterator[Metric]:
        """Counts since the process started, and what the last look has found."""
        yield from self._gauges()
        yield _counter(
            "sluicegate_breaker_transitions",
            "Changes of state in the whole fleet, the same at every replica",
            ["resource", "from", "to", "reason"],
            self._witness.transitions.items(),
        )
        yield _counter(
            "sluicegate_breaker_would_open",
            "Openings that an override has prevented, in the whole fleet",
            ["resource", "reason"],
            self._witness.would_open.items(),
        )
        yield _counter(
            "sluicegate_breaker_probes_lost",
            "Probes that did not report in time, in the whole fleet",
            ["resource"],
            (((name,), count) for name, count in self._witness.lost.items()),
        )
        yield _counter(
            "sluicegate_breaker_probes",
            "Probes that reported to this replica, by what they said",
            ["resource", "result"],
            self._tally.probes.items(),
        )
        yield _counter(
            "sluicegate_breaker_stale_reports",
            "Reports to this replica of calls from before the circuit last changed",
            ["resource"],
            (((name,), count) for name, count in self._tally.stale.items()),
        )

    def _gauges(self) -> Iterator[Metric]:
        names = [self._tally.name(view.resource) for view in self.now]
        seen = dict(zip(names, self.now, strict=True))  # those without a name are one
        yield _gauge(
            "sluicegate_breaker_state",
            "1 for the state that a circuit is in, an override considered",
            ["resource", "state"],
            (
                ((name, str(state)), float(view.effective is state))
                for name, view in seen.items()
                for state in BreakerState
            ),
        )
        yield _gauge(
            "sluicegate_breaker_held",
            "1 while an operator holds a circuit by hand",
            ["resource", "mode"],
            (
                ((name, str(view.override.mode)), 1.0)
                for name, view in seen.items()
                if view.override
            ),
        )
        for kind in ("failure", "slow", "throttle"):
            yield _gauge(
                f"sluicegate_breaker_{kind}_ratio",
                f"Share of calls in the window of a circuit: {_SHARES[kind]}",
                ["resource"],
                (((name,), getattr(view.rates, kind).rate) for name, view in seen.items()),
            )
        yield _gauge(
            "sluicegate_breaker_retry_after_seconds",
            "Until when calls are refused; absent while they pass or nobody knows",
            ["resource", "reason"],
            (
                ((name, view.reason), view.retry_after)
                for name, view in seen.items()
                if view.reason is not None and view.retry_after is not None
            ),
        )


class Degraded(Collector):
    """Pools whose store is lost, and what this replica has granted without it."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages

    def collect(self) -> Iterator[Metric]:
        """As they are now, and counts since the process started."""
        pools = self._outages.all()
        yield _gauge(
            "sluicegate_degraded",
            "1 while the store of a pool is lost, by what is done about it",
            ["pool", "mode"],
            (
                ((pool.name, self._outages.mode(pool.name)), float(self._outages.is_lost(pool)))
                for pool in pools
            ),
        )
        yield _gauge(
            "sluicegate_degraded_replicas",
            "Replicas that share the limits of a pool when its store is lost; 0: no share",
            ["pool"],
            (
                ((pool.name,), float(pool.presence.replicas if pool.presence.part else 0))
                for pool in pools
            ),
        )
        yield _gauge(
            "sluicegate_degraded_uncharged",
            "Leases and reports that the store has not heard of yet",
            ["pool"],
            (((pool.name,), float(len(pool.journal))) for pool in pools),
        )
        yield _counter(
            "sluicegate_degraded_grants",
            "Leases that were granted while the store was lost",
            ["pool"],
            (((pool.name,), pool.granted) for pool in pools),
        )
        yield _counter(
            "sluicegate_degraded_charged",
            "Leases of these that have been charged since",
            ["pool"],
            (((pool.name,), pool.charged) for pool in pools),
        )


_SHARES = {
    "failure": "those that failed",
    "slow": "those with a slow first token",
    "throttle": "those that the provider throttled",
}

Labels = tuple[str, ...]


def _counter(
    name: str, text: str, labels: Sequence[str], counts: Iterable[tuple[Labels, int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in list(counts):
        family.add_metric([str(value) for value in values], count)
    return family


def _gauge(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Labels, float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for named, value in values:
        family.add_metric(named, value)
    return family
