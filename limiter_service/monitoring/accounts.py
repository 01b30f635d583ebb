"""What is counted with every call: plain numbers, made into metrics when Prometheus asks.

The loop of the service is the only one that counts, so nothing here locks: a counter of the
client library costs ten times as much, and this is on the way of every call.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from limiter_service.engine.names import REST, Names
from limiter_service.engine.pages import Ends, amounts
from limiter_service.engine.tally import MOST_RESOURCES
from limiter_service.monitoring.families import MOST_SPENDERS, MOST_TENANTS, family
from limiter_wire import Outcome

_RATE_LIMITED = Outcome.RATE_LIMITED
_FEW = 16  # values of which each is looked up by itself


class Bins:
    """A histogram."""

    __slots__ = ("counts", "edges", "sum")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges, self.counts, self.sum = edges, [0] * (len(edges) + 1), 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Take in one value, as often as it was seen."""
        self.counts[bisect_left(self.edges, value)] += times
        self.sum += value * times

    def observe_all(self, values: Sequence[float]) -> None:
        """Take in some values: many are sorted, so that each edge is looked up once."""
        if len(values) < _FEW:
            for value in values:
                self.observe(value)
            return
        ordered, below, counts = sorted(values), 0, self.counts
        for i, edge in enumerate(self.edges):
            up_to = bisect_right(ordered, edge, below)
            counts[i] += up_to - below
            below = up_to
        counts[-1] += len(ordered) - below
        self.sum = sum(values, self.sum)


def _bins(name: str) -> Bins:
    return Bins(family(name).buckets)


class Account:
    """The numbers of one resource."""

    def __init__(self) -> None:
        self.cost = self.inputs = self.outputs = 0.0
        self.rate_limited = self.expired = self.unforeseen = 0
        self.latency, self.ttft = _bins("provider_latency_seconds"), _bins("provider_ttft_seconds")
        self.waits, self.predicted = (
            _bins("queue_wait_seconds"),
            _bins("queue_wait_prediction_ratio"),
        )
        self.estimate = _bins("estimate_ratio")
        self.reserved: defaultdict[str, float] = defaultdict(float)
        self.refunded: defaultdict[str, float] = defaultdict(float)
        self.debited: defaultdict[str, float] = defaultdict(float)

    def reserve(self, charges: Mapping[bytes, int]) -> None:
        """Count what was charged, by how often."""
        for charged, times in charges.items():
            for meter, amount in amounts(charged).items():
                self.reserved[meter] += times * amount

    def take(self, ends: Ends) -> None:
        """Count how calls have ended."""
        for meter, amount in ends.refunded.items():
            self.refunded[meter] += amount
        for meter, amount in ends.debited.items():
            self.debited[meter] += amount
        for reports in (ends.reports, ends.late):
            self.rate_limited += reports.get(_RATE_LIMITED, 0)
        if ends.latencies:
            self.latency.observe_all(ends.latencies)
        if ends.ttfts:
            self.ttft.observe_all(ends.ttfts)
        if ends.estimates:
            self.estimate.observe_all(ends.estimates)
        self.cost = sum(ends.dollars, self.cost)
        self.inputs += ends.inputs
        self.outputs += ends.outputs


class Tenant:
    """The numbers of one tenant that the pools file names, or of all others."""

    def __init__(self) -> None:
        self.answers: defaultdict[str, int] = defaultdict(int)
        self.waits = _bins("tenant_queue_wait_seconds")


class Accounts(Collector):
    """The numbers of this replica since it started. Bounded: names beyond are counted together."""

    def __init__(self) -> None:
        self.resources: dict[str, Account] = {}
        self.tenants: dict[str, Tenant] = {}
        self.spent: dict[tuple[str, str], float] = {}
        self.granted, self.refused = _bins("acquire_seconds"), _bins("acquire_seconds")
        self._spender = Names((REST, REST), MOST_SPENDERS).of

    def of(self, resource: str) -> Account:
        """The account of a resource."""
        return self.resources.get(resource) or self._open(resource)

    def tenant(self, name: str) -> Tenant:
        """The numbers of a tenant."""
        found = self.tenants.get(name)
        if found is None:
            if len(self.tenants) >= MOST_TENANTS:
                name = REST
            found = self.tenants.get(name)
        if found is None:
            found = self.tenants[name] = Tenant()
        return found

    def spend(self, tenant: str, resource: str, dollars: float) -> None:
        """A tenant has paid for a resource."""
        spender = tenant, resource
        if spender not in self.spent:
            spender = self._spender((tenant, resource if resource in self.resources else REST))
        self.spent[spender] = self.spent.get(spender, 0.0) + dollars

    def _open(self, resource: str) -> Account:
        if len(self.resources) >= MOST_RESOURCES:
            resource = REST
        found = self.resources.get(resource)
        if found is None:
            found = self.resources[resource] = Account()
        return found

    def collect(self) -> Iterator[Metric]:
        """Everything, as metrics."""
        took = _histogram("acquire_seconds")
        _add(took, ["granted"], self.granted)
        _add(took, ["refused"], self.refused)
        yield took
        yield from self._of_resources()
        yield from self._of_tenants()

    def _of_resources(self) -> Iterator[Metric]:
        every = list(self.resources.items())
        for name, field in _COUNTERS.items():
            found = _counter(name)
            for resource, account in every:
                found.add_metric([resource], getattr(account, field))
            yield found
        tokens = _counter("tokens")
        for resource, account in every:
            tokens.add_metric([resource, "input"], account.inputs)
            tokens.add_metric([resource, "output"], account.outputs)
        yield tokens
        for name in ("reserved", "refunded", "debited"):
            found = _counter(name)
            for resource, account in every:
                amounts: Mapping[str, float] = getattr(account, name)
                for meter, amount in amounts.items():
                    found.add_metric([resource, meter], amount)
            yield found
        for name, field in _HISTOGRAMS.items():
            bins = _histogram(name)
            for resource, account in every:
                _add(bins, [resource], getattr(account, field))
            yield bins

    def _of_tenants(self) -> Iterator[Metric]:
        answers, waits = _counter("tenant_decisions"), _histogram("tenant_queue_wait_seconds")
        for name, tenant in self.tenants.items():
            for code, count in tenant.answers.items():
                answers.add_metric([name, code], count)
            _add(waits, [name], tenant.waits)
        spent = _counter("tenant_cost_usd")
        for spender, dollars in self.spent.items():
            spent.add_metric(spender, dollars)
        yield from (answers, waits, spent)


_COUNTERS = {
    "cost_usd": "cost",
    "provider_rate_limited": "rate_limited",
    "leases_expired": "expired",
    "queue_waits_beyond_forecast": "unforeseen",
}
_HISTOGRAMS = {
    "provider_latency_seconds": "latency",
    "provider_ttft_seconds": "ttft",
    "queue_wait_seconds": "waits",
    "queue_wait_prediction_ratio": "predicted",
    "estimate_ratio": "estimate",
}


class StoreCalls(Collector):
    """Script calls: how long they take, and how many have no answer."""

    def __init__(self) -> None:
        self._took: dict[str, Bins] = {}
        self._failures: defaultdict[str, int] = defaultdict(int)
        self.good = True

    def called(self, script: str, took: float, good: bool, calls: int = 1) -> None:  # noqa: FBT001  # Watch
        """Calls are over."""
        bins = self._took.get(script)
        if bins is None:
            bins = self._took[script] = _bins("store_call_seconds")
        bins.observe(took, calls)
        self.good = good
        if not good:
            self._failures[script] += calls

    def collect(self) -> Iterator[Metric]:
        """Everything, as metrics."""
        took, failures = _histogram("store_call_seconds"), _counter("store_failures")
        for script, bins in self._took.items():
            _add(took, [script], bins)
        for script, count in self._failures.items():
            failures.add_metric([script], count)
        yield from (took, failures)


def _counter(name: str) -> CounterMetricFamily:
    of = family(name)
    return CounterMetricFamily(of.name, of.text, labels=of.labels)


def _histogram(name: str) -> HistogramMetricFamily:
    of = family(name)
    return HistogramMetricFamily(of.name, of.text, labels=of.labels)


def _add(to: HistogramMetricFamily, labels: list[str], bins: Bins) -> None:
    total, buckets = 0, list[tuple[str, float]]()
    for edge, count in zip((*bins.edges, float("inf")), bins.counts, strict=True):
        total += count
        buckets.append(("+Inf" if edge == float("inf") else str(float(edge)), total))
    to.add_metric(labels, buckets, bins.sum)
