"""Prometheus metrics: every name in one place."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from limiter_service.engine.statistics import Wait

_WAITS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)
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

    def note_wait(self, wait: Wait) -> None:
        """Count one wait and how good its forecast was."""
        self._waits.labels(wait.resource).observe(wait.waited)
        if wait.predicted.p50 > 0:
            self._ratios.labels(wait.resource).observe(wait.waited / wait.predicted.p50)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
