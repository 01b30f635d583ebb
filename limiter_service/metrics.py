"""The metrics of one process; their names are in `monitoring/families.py`."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

import msgspec
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from limiter_service.engine.census import Census
from limiter_service.engine.names import REST, Names
from limiter_service.engine.outages import Outages
from limiter_service.engine.policy import Policy
from limiter_service.engine.shape import Taken
from limiter_service.engine.statistics import Wait
from limiter_service.engine.tally import Tally
from limiter_service.engine.turnstile import Turnstile
from limiter_service.engine.witness import Witness
from limiter_service.monitoring.accounts import Account, Accounts, StoreCalls, Tenant
from limiter_service.monitoring.families import (
    MOST_LIMITS,
    counted,
    counter,
    gauge,
    measured,
)
from limiter_service.monitoring.standing import Access, Breakers, Degraded, Standing
from limiter_wire import (
    Acquire,
    BreakerView,
    BudgetView,
    Ended,
    ErrorCode,
    Granted,
    Outcome,
    Problem,
    Settle,
    Settled,
    Usage,
)

_RATE_LIMITED = Outcome.RATE_LIMITED


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says of itself."""

    pools: int = 0
    refused: bool = False
    connections: int = 0
    closed: Mapping[str, int] = {}
    channels: int = 0
    held: int = 0


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
        outages: Outages | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:
        # A second series for each, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        registry = self._registry = CollectorRegistry()
        self._limit = Names(REST, MOST_LIMITS).of
        self._tenants = tenants
        self._accounts, self._store = Accounts(), StoreCalls()
        self._breakers, self._standing = Breakers(witness, tally), Standing(tally)
        process = Process(state, self._store)
        collectors = (
            Decisions(tally),
            self._accounts,
            self._breakers,
            self._standing,
            self._store,
            Access(turnstile or Turnstile()),
            process,
        )
        for each in collectors:
            registry.register(each)
        if outages is not None:
            registry.register(Degraded(outages))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._differences = counter("trial_differences", registry)
        self._budget_spent = gauge("budget_spent_ratio", registry)
        self._budget_lasts = gauge("budget_exhausted_in_seconds", registry)
        self.called = self._store.called

    # Told by the books

    def answered(self, request: Acquire, answer: Granted | Taken | Problem, took: float) -> None:
        """Count an answer to an acquire."""
        if not isinstance(answer, Problem):
            code = "granted"
            if answer.waited <= 0:
                self._accounts.granted.observe(took)
            if not answer.settled:
                reserved = self._accounts.of(request.resource).reserved
                for meter, amount in answer.charged.items():
                    reserved[meter] += amount
        else:
            code = answer.code
            if code is not ErrorCode.WAIT_TIMEOUT:
                self._accounts.refused.observe(took)
            if code is ErrorCode.UNKNOWN_RESOURCE:
                return
        self._tenant(request.tenant).answers[code] += 1

    def settled(
        self,
        policy: Policy,
        report: Settle,
        usage: Usage | None,
        dollars: float | None,
        answer: Settled | None,
    ) -> None:
        """Count how a call went, what it has used and cost, and what its settle has moved."""
        of = self._accounts.of(policy.resource)
        if answer is not None:
            _move(of, answer)
        if report.outcome is _RATE_LIMITED:
            of.rate_limited += 1
        if report.latency is not None:
            of.latency.observe(report.latency)
        if report.ttft is not None:
            of.ttft.observe(report.ttft)
        if dollars is not None:
            of.cost += dollars
            tenant = policy.tenant if policy.tenant in self._tenants() else REST
            self._accounts.spend(tenant, policy.resource, dollars)
        if usage is not None:
            of.inputs += usage.input_tokens
            of.outputs += usage.output_tokens
            if report.estimated_input_tokens:
                of.estimate.observe(usage.input_tokens / report.estimated_input_tokens)

    def lent(self, resource: str, charged: dict[str, float]) -> None:
        """Count what a block has reserved."""
        reserved = self._accounts.of(resource).reserved
        for meter, amount in charged.items():
            reserved[meter] += amount

    def ended(
        self, policy: Policy, calls: Ended, usage: Usage | None, dollars: float | None
    ) -> None:
        """Count how calls of a block went, what they have used and cost."""
        of = self._accounts.of(policy.resource)
        tenant = policy.tenant if policy.tenant in self._tenants() else REST
        self._accounts.tenant(tenant).answers["granted"] += calls.calls
        if calls.outcome is Outcome.RATE_LIMITED:
            of.rate_limited += calls.calls
        for latency in calls.latencies:
            of.latency.observe(latency)
        for ttft in calls.ttfts:
            of.ttft.observe(ttft)
        if dollars is not None:
            of.cost += dollars
            self._accounts.spend(tenant, policy.resource, dollars)
        if usage is not None:
            of.inputs += usage.input_tokens
            of.outputs += usage.output_tokens

    def moved(self, resource: str, answer: Settled) -> None:
        """Count what a report on a block has moved."""
        _move(self._accounts.of(resource), answer)

    def expired_unsettled(self, resource: str) -> None:
        """Count a lease that nobody has settled."""
        self._accounts.of(resource).expired += 1

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
        of = self._accounts.of(wait.resource)
        of.waits.observe(wait.waited)
        self._tenant(wait.tenant).waits.observe(wait.waited)
        if wait.predicted.p50 > 0:
            of.predicted.observe(wait.waited / wait.predicted.p50)
        if wait.waited > wait.predicted.p90:
            of.unforeseen += 1

    # Asked by Prometheus

    def render(self, breakers: Sequence[BreakerView], census: Census | None = None) -> bytes:
        """The text that Prometheus reads, with what stands in the fleet now."""
        self._breakers.now, self._standing.now = breakers, census or Census()
        return generate_latest(self._registry)

    def families(self) -> list[Metric]:
        """Every metric with what it has counted, for the reference."""
        return list(self._registry.collect())

    def _tenant(self, name: str) -> Tenant:
        known = name if name in self._tenants() else REST
        return self._accounts.tenants.get(known) or self._accounts.tenant(known)


def _move(of: Account, answer: Settled) -> None:
    for meter, amount in answer.refunded.items():
        of.refunded[meter] += amount
    for meter, amount in answer.debited.items():
        of.debited[meter] += amount


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

    def __init__(self, state: Callable[[], State], store: StoreCalls) -> None:
        self._state, self._version = state, version("sluicegate")
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        now = self._state()
        yield measured("build_info", [((self._version,), 1.0)])
        yield measured("config_pools", [((), float(now.pools))])
        yield measured("config_refused", [((), float(now.refused))])
        yield measured("connections_open", [((), float(now.connections))])
        yield counted("connections_closed", [((why,), n) for why, n in now.closed.items()])
        yield measured("channels_open", [((), float(now.channels))])
        yield measured("callers_held", [((), float(now.held))])
        yield measured("store_available", [((), float(self._store.good))])
