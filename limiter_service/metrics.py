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
from limiter_service.engine.pages import Ends, Grants
from limiter_service.engine.statistics import Wait
from limiter_service.engine.tally import Tally
from limiter_service.engine.turnstile import Turnstile
from limiter_service.engine.witness import Witness
from limiter_service.monitoring.accounts import Accounts, StoreCalls, Tenant
from limiter_service.monitoring.families import (
    MOST_LIMITS,
    counted,
    counter,
    gauge,
    measured,
)
from limiter_service.monitoring.standing import Access, Breakers, Degraded, Standing
from limiter_wire import Acquire, BreakerView, BudgetView, ErrorCode, Problem


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
        self._tally, self._tenants = tally, tenants
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

    def refused(self, request: Acquire, answer: Problem, took: float) -> None:
        """Count a refusal."""
        if answer.code is not ErrorCode.WAIT_TIMEOUT:
            self._accounts.refused.observe(took)
        if answer.code is not ErrorCode.UNKNOWN_RESOURCE:
            self._tenant(request.tenant).answers[answer.code] += 1

    def booked(self, grants: Iterable[Grants], took: Sequence[float], ends: Iterable[Ends]) -> None:
        """Count what calls have reserved, used and cost, and how they went."""
        accounts = self._accounts
        accounts.granted.observe_all(took)
        for given in grants:
            if given.count:
                self._tenant(given.tenant).answers["granted"] += given.count
            if given.reserved:
                accounts.of(given.resource).reserve(given.reserved)
        for each in ends:
            accounts.of(each.resource).take(each)
            tenant = each.tenant if each.tenant in self._tenants() else REST
            for dollars in each.dollars:
                accounts.spend(tenant, each.resource, dollars)

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
        self._tally.catch_up()
        self._breakers.now, self._standing.now = breakers, census or Census()
        return generate_latest(self._registry)

    def families(self) -> list[Metric]:
        """Every metric with what it has counted, for the reference."""
        self._tally.catch_up()
        return list(self._registry.collect())

    def _tenant(self, name: str) -> Tenant:
        known = name if name in self._tenants() else REST
        return self._accounts.tenants.get(known) or self._accounts.tenant(known)


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
