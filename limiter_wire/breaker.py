"""Circuit breakers as an operator sees and holds them. Times are seconds since 1970."""

from enum import StrEnum
from typing import Annotated

import msgspec

from limiter_wire._base import Wire


class BreakerState(StrEnum):
    """What a circuit does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class OverrideMode(StrEnum):
    """How an operator holds a circuit: refuse all calls, pass all, or pass and say what
    would have been refused.
    """

    OPEN = "open"
    CLOSED = "closed"
    OBSERVE = "observe"


class Override(Wire, frozen=True, kw_only=True):
    """Hold a circuit for `ttl` seconds; `null` holds it until it is cleared.

    With `expected_generation` the order is refused when the circuit has changed since it
    was looked at.
    """

    mode: OverrideMode
    ttl: Annotated[float, msgspec.Meta(gt=0, le=31_622_400)] | None
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    expected_generation: Annotated[int, msgspec.Meta(ge=0, le=9_007_199_254_740_992)] | None = None


class OverrideView(Wire, frozen=True, kw_only=True):
    """Who holds a circuit, how, until when, and why. `until` is none: until it is cleared."""

    mode: OverrideMode
    until: float | None
    actor: str
    reason: str


class BreakerWindow(Wire, frozen=True, kw_only=True):
    """What was reported in the last `seconds`."""

    seconds: float
    ok: int
    fail: int
    slow: int
    throttle: int
    failing_workers: int
    workers: int


class BreakerRate(Wire, frozen=True, kw_only=True):
    """A share of the window's calls, and the share that opens the circuit (none: no share)."""

    rate: float
    threshold: float | None


class BreakerRates(Wire, frozen=True, kw_only=True):
    """The shares that are judged once there are `min_calls` calls."""

    min_calls: int
    failure: BreakerRate
    slow: BreakerRate
    throttle: BreakerRate


class BreakerProbes(Wire, frozen=True, kw_only=True):
    """Probes of a half-open circuit: under way, when the first of them ends at the latest,
    passed, and lost.
    """

    limit: int
    needed: int
    held: int
    expires: float | None
    ok: int
    lost: int


class BreakerError(Wire, frozen=True, kw_only=True):
    """One of the last failures. `status` and `digest` of its message are none where the report
    did not say.
    """

    outcome: str
    time: float
    status: int | None = None
    digest: str | None = None


class BreakerView(Wire, frozen=True, kw_only=True):
    """One circuit at one moment.

    `effective` is what it does: its own state, or what an override makes of it. When calls
    are refused, `reason` says why, and `retry_after` when to try (none: nobody knows): also
    what the pool is latched by, or cools down for. `latch` is what this model alone is latched
    by, after `credentials_refused` in a row or at once.
    `ramp` is the share of their rate at which the model's buckets refill.
    """

    resource: str
    state: BreakerState
    effective: BreakerState
    generation: int
    since: float | None
    retry_after: float | None = None
    reason: str | None = None
    window: BreakerWindow
    rates: BreakerRates
    consecutive: int
    probes: BreakerProbes
    latch: str | None = None
    credentials_refused: int = 0
    open_count: int
    next_open_duration: float
    cooldown_until: float | None = None
    ramp: float = 1.0
    override: OverrideView | None = None
    last_errors: list[BreakerError] = []


class ProviderView(Wire, frozen=True, kw_only=True):
    """What the circuits of one pool say about its provider, and what the pool shares.

    `verdict` is `down` when two or more models are open or the pool is latched,
    `degraded` when one is, else `up`. `retries_left` is what the retry budget holds now.
    """

    pool: str
    verdict: str
    open_models: list[str]
    latch: str | None = None
    latched_since: float | None = None
    latched_until: float | None = None
    cooldown_until: float | None = None
    credentials_refused: int = 0
    retries_left: float | None = None


class BreakerList(Wire, frozen=True, kw_only=True):
    """Circuits of what is configured or was asked for, and a verdict for each pool."""

    breakers: list[BreakerView]
    providers: list[ProviderView]
