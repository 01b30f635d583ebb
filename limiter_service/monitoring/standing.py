"""What stands in the fleet when Prometheus asks: limits, leases, queues, circuits."""

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from limiter_service.engine.census import Census
from limiter_service.engine.names import REST, Names
from limiter_service.engine.outages import Outages
from limiter_service.engine.tally import Tally
from limiter_service.engine.turnstile import Turnstile
from limiter_service.engine.witness import Witness
from limiter_service.monitoring.families import MOST_LIMITS, MOST_POOLS, counted, measured
from limiter_wire import BreakerState, BreakerView, LimitView


class Standing(Collector):
    """Limits, leases and queues as the last census has found them."""

    def __init__(self, tally: Tally) -> None:
        self._name, self._limit = tally.name, Names(REST, MOST_LIMITS).of
        self._pool = Names(REST, MOST_POOLS).of
        self.now = Census()

    def collect(self) -> Iterator[Metric]:
        """Those whose names are told apart: a level of several limits together says nothing."""
        limits = {n: v for n, v in self.now.limits.items() if self._limit(n) != REST}
        yield measured("limit_in_force", _of(limits, "limit"))
        yield measured("limit_configured", _of(limits, "configured"))
        yield measured("limit_learned", _of(limits, "learned"))
        held = {n: v.override.limit for n, v in limits.items() if v.override is not None}
        yield measured("limit_held", (((n, str(limits[n].meter)), v) for n, v in held.items()))
        yield measured("limit_remaining", _of(limits, "remaining"))
        yield measured(
            "limit_remaining_ratio",
            (
                ((n, str(v.meter)), v.remaining / v.capacity)
                for n, v in limits.items()
                if v.capacity
            ),
        )
        yield measured("limit_rate_ratio", _of(limits, "share"))
        flights = {self._name(n): count for n, count in self.now.in_flight.items()}
        yield measured(
            "leases_in_flight", (((n,), count) for n, count in flights.items() if n != REST)
        )
        blocks = {n: held for n, held in self.now.blocks.items() if self._pool(n) != REST}
        yield measured(
            "blocks_held",
            (
                ((pool, meter), float(amount))
                for pool, held in blocks.items()
                for meter, amount in zip(("requests", "tokens"), held, strict=True)
            ),
        )
        queues = [each for each in self.now.queues if self._pool(each.pool) != REST]
        yield measured("queue_depth", (((each.pool,), each.depth) for each in queues))
        yield measured("queue_oldest_seconds", (((each.pool,), each.oldest) for each in queues))
        yield measured("queue_max_waiters", (((each.pool,), each.most) for each in queues))


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
        yield counted("breaker_transitions", self._witness.transitions.items())
        yield counted("breaker_would_open", self._witness.would_open.items())
        yield counted("breaker_probes_lost", _alone(self._witness.lost))
        yield counted("breaker_probes", self._tally.probes.items())
        yield counted("breaker_stale_reports", _alone(self._tally.stale))

    def _gauges(self) -> Iterator[Metric]:
        names = [self._tally.name(view.resource) for view in self.now]
        seen = dict(zip(names, self.now, strict=True))  # those without a name are one
        yield measured(
            "breaker_state",
            (
                ((name, str(state)), float(view.effective is state))
                for name, view in seen.items()
                for state in BreakerState
            ),
        )
        yield measured(
            "breaker_held",
            (
                ((name, str(view.override.mode)), 1.0)
                for name, view in seen.items()
                if view.override
            ),
        )
        for kind in ("failure", "slow", "throttle"):
            yield measured(
                f"breaker_{kind}_ratio",
                (((name,), getattr(view.rates, kind).rate) for name, view in seen.items()),
            )
        yield measured(
            "breaker_retry_after_seconds",
            (
                ((name, view.reason), view.retry_after)
                for name, view in seen.items()
                if view.reason is not None and view.retry_after is not None
            ),
        )


class Access(Collector):
    """Callers that are turned away."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile

    def collect(self) -> Iterator[Metric]:
        """Counts since the process started; every reason from the beginning."""
        yield counted("callers_refused", _alone(self._turnstile.counts))


class Degraded(Collector):
    """Pools whose store is lost, and what this replica has granted without it."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages

    def collect(self) -> Iterator[Metric]:
        """As they are now, and counts since the process started."""
        outages, pools = self._outages, self._outages.all()
        yield measured(
            "degraded",
            (((p.name, outages.mode(p.name)), float(outages.is_lost(p))) for p in pools),
        )
        yield measured(
            "degraded_replicas",
            (((p.name,), float(p.presence.replicas if p.presence.part else 0)) for p in pools),
        )
        yield measured("degraded_uncharged", (((p.name,), float(len(p.journal))) for p in pools))
        yield counted("degraded_grants", (((p.name,), p.granted) for p in pools))
        yield counted("degraded_charged", (((p.name,), p.charged) for p in pools))


def _of(limits: Mapping[str, LimitView], field: str) -> Iterator[tuple[tuple[str, str], float]]:
    for name, view in limits.items():
        value = getattr(view, field)
        if value is not None:
            yield (name, str(view.meter)), value


def _alone(counts: Mapping[str, int]) -> Iterator[tuple[tuple[str], int]]:
    return (((name,), count) for name, count in counts.items())
