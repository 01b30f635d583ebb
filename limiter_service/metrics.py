"""Prometheus metrics: every name in one place."""

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from limiter_service.engine.statistics import Wait
from limiter_wire import BudgetView, Usage

_WAITS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)
_MOST_NAMES = 1000
_RATIOS = (0.25, 0.5, 0.75, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 4)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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
        self._names: set[str] = set()
        self._spenders: dict[str, tuple[Counter, Counter, Counter]] = {}

    def differs(self, limits: Iterable[str], difference: str) -> None:
        """Count shadow limits that would have answered otherwise."""
        for limit in limits:
            self._differences.labels(self._bounded(limit), difference).inc()

    def spent(self, resource: str, usage: Usage | None, dollars: float | None) -> None:
        """Count what a settled call has used and cost."""
        found = self._spenders.get(resource)
        if found is None:  # looking a label up costs more than counting
            name = self._bounded(resource)
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
            name = self._bounded(f"{pool}/{view.name}")
            lasts = math.inf if view.exhausted_in is None else view.exhausted_in
            self._budget_spent.labels(name).set(view.spent / view.limit)
            self._budget_lasts.labels(name).set(lasts)

    def _bounded(self, name: str) -> str:
        """*name*, or a star for all that come when there are enough: callers choose names."""
        if name not in self._names and len(self._names) >= _MOST_NAMES:
            return "*"
        self._names.add(name)
        return name

    def note_wait(self, wait: Wait) -> None:
        """Count one wait and how good its forecast was."""
        self._waits.labels(wait.resource).observe(wait.waited)
        if wait.predicted.p50 > 0:
            self._ratios.labels(wait.resource).observe(wait.waited / wait.predicted.p50)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
