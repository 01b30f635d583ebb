"""Everything that a dashboard shows, as `GET /v1/live` tells it every second."""

from limiter_wire._base import Wire
from limiter_wire.breaker import BreakerView, ProviderView
from limiter_wire.limits import LimitView, ResourceView
from limiter_wire.queue import QueueView


class RefusalCount(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """Refusals of one kind: the code, the breaker's reason, the limit that was short."""

    code: str
    reason: str = ""
    limit: str = ""
    count: int


class Traffic(Wire, frozen=True, kw_only=True):
    """Acquires of one resource in the fleet, of late.

    `no_room` were refused by a limit or the queue, `stopped` by a breaker, a cooldown or a
    latch, `failed` for any other reason. `refusals` has the most frequent kinds at the replica
    that answers since it started.
    """

    resource: str
    granted: float
    no_room: float
    stopped: float
    failed: float
    refusals: list[RefusalCount] = []


class TenantLimits(Wire, frozen=True, kw_only=True):
    """The limits of one tenant's own in one pool, those on single models among them."""

    pool: str
    tenant: str
    limits: list[LimitView]


class Live(Wire, frozen=True, kw_only=True):
    """One moment. Times are Unix seconds.

    `store` is none while the store answers, else why not; then only what this replica knows by
    itself is told. `traffic` is of the last `traffic_seconds`. `omitted` is how many resources are
    not told, since there are too many.
    """

    time: float
    uptime: float
    version: str
    store: str | None
    resources: list[ResourceView]
    tenants: list[TenantLimits]
    breakers: list[BreakerView]
    providers: list[ProviderView]
    queues: list[QueueView]
    traffic: list[Traffic]
    traffic_seconds: float
    omitted: int = 0


class TrafficPast(Wire, frozen=True, kw_only=True):
    """Acquires of one resource in the fleet, in each of the steps; before somebody looked, and
    but for the last minute, an average.
    """

    resource: str
    granted: list[float]
    no_room: list[float]
    stopped: list[float]
    failed: list[float]


class LevelPast(Wire, frozen=True, kw_only=True):
    """What remained of a limit, as a share of it, in each of the steps in which somebody looked."""

    resource: str
    limit: str
    left: list[float | None]


class Past(Wire, frozen=True, kw_only=True):
    """The last minutes, in steps of `step` seconds that end at `times`."""

    step: float
    times: list[float]
    traffic: list[TrafficPast]
    levels: list[LevelPast]
