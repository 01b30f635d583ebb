"""The metrics of one process; their names are in `monitoring/families.py`."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from limiter_service.engine.census import Census
from limiter_service.engine.names import REST, Names
from limiter_service.engine.policy import Policy
from limiter_service.engine.statistics import Wait
from limiter_service.engine.tally import MOST_RESOURCES, Tally
from limiter_service.engine.witness import Witness
from limiter_service.monitoring.families import (
    MOST_LIMITS,
    MOST_SPENDERS,
    MOST_TENANTS,
    counted,
    counter,
    gauge,
    histogram,
    measured,
)
from limiter_service.monitoring.standing import Breakers, Standing
from limiter_wire import (
    Acquire,
    BreakerView,
    BudgetView,
    ErrorCode,
    Granted,
    Outcome,
    Problem,
    Settle,
    Settled,
    Usage,
)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says of itself."""

    pools: int = 0
    refused: bool = False
    channels: int = 0
    held: int = 0
    degraded: bool = False


class _OfResource:
    """The series of one resource, looked up once: that costs more than counting."""

    __slots__ = (
        "cost", "debited", "estimate", "expired", "inputs", "latency", "outputs", "predicted",
        "refunded", "refused", "reserved", "ttft", "unforeseen", "waits",
    )  # fmt: skip

    def __init__(self, of: "Metrics", name: str) -> None:
        self.cost = of.cost.labels(name)
        self.inputs, self.outputs = (
            of.tokens.labels(name, "input"),
            of.tokens.labels(name, "output"),
        )
        self.refused, self.expired = of.refused.labels(name), of.expired.labels(name)
        self.latency, self.ttft = of.latency.labels(name), of.ttft.labels(name)
        self.estimate, self.waits = of.estimates.labels(name), of.waits.labels(name)
        self.predicted, self.unforeseen = of.ratios.labels(name), of.unforeseen.labels(name)
        self.reserved = _Meters(of.reserved, name)
        self.refunded, self.debited = _Meters(of.refunded, name), _Meters(of.debited, name)


class _Meters:
    """A counter of one resource by meter."""

    __slots__ = ("_known", "_name", "_of")

    def __init__(self, of: Counter, name: str) -> None:
        self._of, self._name, self._known = of, name, dict[str, Counter]()

    def add(self, amounts: Mapping[str, float]) -> None:
        for meter, amount in amounts.items():
            found = self._known.get(meter)
            if found is None:
                found = self._known[meter] = self._of.labels(self._name, meter)
            found.inc(amount)


class Metrics:
    """The metrics of one process, in a registry of their own.

    *tenants* are those that the pools file names: only they are told apart.
    """

    def __init__(
        self,
        tally: Tally,
        witness: Witness,
        tenants: Callable[[], Iterable[str]] = tuple,
        state: Callable[[], State] = State,
    ) -> None:
        # A second series for each, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        registry = self._registry = CollectorRegistry()
        self._name, self._limit = Names(REST, MOST_RESOURCES).of, Names(REST, MOST_LIMITS).of
        self._spender = Names((REST, REST), MOST_SPENDERS).of
        self._tenants, self._tenant = tenants, Names(REST, MOST_TENANTS).of
        self._breakers, self._standing = Breakers(witness, tally), Standing(tally)
        self._process = Process(state)
        for each in (Decisions(tally), self._breakers, self._standing, self._process):
            registry.register(each)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._took = histogram("acquire_seconds", registry)
        self._granted, self._denied = self._took.labels("granted"), self._took.labels("refused")
        self._differences = counter("trial_differences", registry)
        self._budget_spent = gauge("budget_spent_ratio", registry)
        self._budget_lasts = gauge("budget_exhausted_in_seconds", registry)
        self.waits = histogram("queue_wait_seconds", registry)
        self.ratios = histogram("queue_wait_prediction_ratio", registry)
        self.unforeseen = counter("queue_waits_beyond_forecast", registry)
        self.expired = counter("leases_expired", registry)
        self.reserved, self.refunded = counter("reserved", registry), counter("refunded", registry)
        self.debited, self.estimates = (
            counter("debited", registry),
            histogram("estimate_ratio", registry),
        )
        self.refused = counter("provider_rate_limited", registry)
        self.latency = histogram("provider_latency_seconds", registry)
        self.ttft = histogram("provider_ttft_seconds", registry)
        self.tokens, self.cost = counter("tokens", registry), counter("cost_usd", registry)
        self._tenant_answers = counter("tenant_decisions", registry)
        self._tenant_waits = histogram("tenant_queue_wait_seconds", registry)
        self._tenant_cost = counter("tenant_cost_usd", registry)
        self._store_calls = histogram("store_call_seconds", registry)
        self._store_failures = counter("store_failures", registry)
        self._scripts: dict[str, Histogram] = {}
        self._resources: dict[str, _OfResource] = {}
        self._known_tenants: dict[tuple[str, str], Counter] = {}

    # Told by the books

    def answered(self, request: Acquire, answer: Granted | Problem, took: float) -> None:
        """Count an answer to an acquire."""
        if isinstance(answer, Granted):
            code = "granted"
            if answer.waited <= 0:
                self._granted.observe(took)
            if not answer.settled:
                self._of(request.resource).reserved.add(answer.charged)
        else:
            code = str(answer.code)
            if answer.code is not ErrorCode.WAIT_TIMEOUT:
                self._denied.observe(took)
            if answer.code is ErrorCode.UNKNOWN_RESOURCE:
                return
        key = request.tenant, code
        found = self._known_tenants.get(key)
        if found is None:
            found = self._tenant_answers.labels(self._tenant_of(request.tenant), code)
            if len(self._known_tenants) < MOST_TENANTS * 30:
                self._known_tenants[key] = found
        found.inc()

    def settled(
        self, policy: Policy, report: Settle, usage: Usage | None, dollars: float | None
    ) -> None:
        """Count how a call went, what it has used and cost."""
        of = self._of(policy.resource)
        if report.outcome is Outcome.RATE_LIMITED:
            of.refused.inc()
        if report.latency is not None:
            of.latency.observe(report.latency)
        if report.ttft is not None:
            of.ttft.observe(report.ttft)
        if dollars is not None:
            of.cost.inc(dollars)
            spender = self._tenant_of(policy.tenant), self._name(policy.resource)
            self._tenant_cost.labels(*self._spender(spender)).inc(dollars)
        if usage is not None:
            of.inputs.inc(usage.input_tokens)
            of.outputs.inc(usage.output_tokens)
            if report.estimated_input_tokens:
                of.estimate.observe(usage.input_tokens / report.estimated_input_tokens)

    def moved(self, resource: str, answer: Settled) -> None:
        """Count what a settle has moved."""
        of = self._of(resource)
        of.refunded.add(answer.refunded)
        of.debited.add(answer.debited)

    def expired_unsettled(self, resource: str) -> None:
        """Count a lease that nobody has settled."""
        self._of(resource).expired.inc()

    def differs(self, limits: Iterable[str], difference: str) -> None:
        """Count shadow limits that would have answered otherwise."""
        for limit in limits:
            self._differences.labels(self._limit(limit), difference).inc()

    def budgets(self, pool: str, views: Iterable[BudgetView]) -> None:
        """Note budgets as they stand."""
        for view in views:
            name = self._limit(f"{pool}/{view.name}")
            lasts = math.inf if view.exhausted_in is None else view.exhausted_in
            self._budget_spent.labels(name).set(view.spent / view.limit)
            self._budget_lasts.labels(name).set(lasts)

    def note_wait(self, wait: Wait) -> None:
        """Count one wait and how good its forecast was."""
        of = self._of(wait.resource)
        of.waits.observe(wait.waited)
        self._tenant_waits.labels(self._tenant_of(wait.tenant)).observe(wait.waited)
        if wait.predicted.p50 > 0:
            of.predicted.observe(wait.waited / wait.predicted.p50)
        if wait.waited > wait.predicted.p90:
            of.unforeseen.inc()

    # Told by the store

    def called(self, script: str, took: float, good: bool) -> None:  # noqa: FBT001  # Watch
        """Count a script call."""
        found = self._scripts.get(script)
        if found is None:
            found = self._scripts[script] = self._store_calls.labels(script)
        found.observe(took)
        self._process.store_answers = good
        if not good:
            self._store_failures.labels(script).inc()

    # Asked by Prometheus

    def render(self, breakers: Sequence[BreakerView], census: Census | None = None) -> bytes:
        """The text that Prometheus reads, with what stands in the fleet now."""
        self._breakers.now, self._standing.now = breakers, census or Census()
        return generate_latest(self._registry)

    def families(self) -> list[Metric]:
        """Every metric with what it has counted, for the reference."""
        return list(self._registry.collect())

    def _of(self, resource: str) -> _OfResource:
        found = self._resources.get(resource)
        if found is None:
            name = self._name(resource)
            found = self._resources.get(name)
            if found is None:
                found = self._resources[name] = _OfResource(self, name)
        return found

    def _tenant_of(self, tenant: str) -> str:
        return self._tenant(tenant) if tenant in self._tenants() else REST


class Decisions(Collector):
    """What this replica has answered, and what it was told."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """Counts since the process started."""
        yield counted("decisions", self._tally.decisions.items())
        yield counted("reports", self._tally.reports.items())


class Process(Collector):
    """The process itself, and whether its store answers."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state, self._version = state, version("sluicegate")
        self.store_answers = True

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        now = self._state()
        yield measured("build_info", [((self._version,), 1.0)])
        yield measured("config_pools", [((), float(now.pools))])
        yield measured("config_refused", [((), float(now.refused))])
        yield measured("channels_open", [((), float(now.channels))])
        yield measured("callers_held", [((), float(now.held))])
        yield measured("store_available", [((), float(self.store_answers))])
        yield measured("degraded", [((), float(now.degraded))])
