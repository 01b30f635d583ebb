"""From a section of the configuration to its limits, ready to be decided over. Pure."""

import math
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from limiter_service.config import (
    RAMP,
    Learn,
    LimitConfig,
    PoolConfig,
    RampConfig,
    period,
    seconds,
)
from limiter_wire import Meter

SLOTS_OF_A_WINDOW = 90
"""Slots of a sliding window: it is late by at most a ninetieth of its period."""

SLOTS_OF_A_RAMP = 20
"""Slots of one period of a ramp; one more counts (lua/lib/ramp)."""

RAMPS = 2**50
"""Ids of ramps are this and more; those of other limits are less (lua/lib/layout)."""

KINDS = {"bucket": 1, "sliding": 2, "calendar": 3, "concurrency": 4, "ramp": 5}
_WINDOWS = {kind: window for window, kind in KINDS.items()}
_IN_AN_ID = 4  # kinds that its last two bits can say
_MICRO = 1_000_000


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit, ready to be decided over.

    `unit` is how many units of the scripts make one of the meter: money is counted in
    millionths of a dollar, everything else as it is. `rate` is units per microsecond. A ramp
    is a limit beside the one that it belongs to, and shares its `config`: `limit` is where it
    starts, `factor` how far it may grow in a period.
    """

    id: int
    name: str
    scope: str
    meter: Meter
    kind: int
    unit: int
    capacity: float
    limit: float
    per: float | None
    rate: float
    config: LimitConfig
    learn: Learn = "never"
    factor: float = 1.0

    @property
    def shadow(self) -> bool:
        """Whether the limit is only watched."""
        return self.config.mode == "shadow"

    @property
    def window(self) -> str:
        """The window's name, also of what has none in the file: concurrency, ramps."""
        return _WINDOWS[self.kind]


def limits(
    scope: str, label: str, configs: Iterable[LimitConfig], pool: PoolConfig
) -> Iterator[Limit]:
    """The limits of one section, named after its *label*, each with its ramp behind it."""
    for config in configs:
        limit = _limit(scope, label, config, _learn(pool, scope, config))
        yield limit
        if config.ramp is not None:
            yield _ramp(limit, config.ramp)


def is_plain(limit: Limit) -> bool:
    """Whether *limit* is decided at once where nothing is unusual (lua/lib/ordinary)."""
    return limit.window == "bucket" and not limit.shadow


def has_shape(limit: Limit) -> bool:
    """Whether what is left of *limit* stands in a place of its own (engine/shape)."""
    return limit.rate > 0 if limit.window == "bucket" else limit.window != "ramp"


def expects(limit: Limit) -> bool:
    """Whether what *limit* holds may depend on learned sizes."""
    return limit.meter is Meter.COST_USD or "expected" in (limit.config.reserve or "")


def slot_width(limit: Limit) -> int:
    """Microseconds of one slot of a sliding window or a ramp: whole, and never too narrow."""
    assert limit.per is not None
    slots = SLOTS_OF_A_RAMP if limit.window == "ramp" else SLOTS_OF_A_WINDOW
    return math.ceil(limit.per * _MICRO / slots)


def _learn(pool: PoolConfig, scope: str, limit: LimitConfig) -> Learn:
    """What a limit learns: headers are about a model, and tenants are nobody's but ours."""
    if scope == "model":
        return limit.learn or pool.learn
    return limit.learn or "never" if scope == "pool" else "never"


def _ramp(limit: Limit, ramp: RampConfig) -> Limit:
    per = seconds(ramp.period)
    shape = f"{limit.scope}|{limit.config.name}|{limit.meter}|ramp|{per}/{SLOTS_OF_A_RAMP}"
    digest = blake2b(shape.encode(), digest_size=6)
    return replace(
        limit,
        id=RAMPS + int.from_bytes(digest.digest(), "big"),
        name=f"{limit.name}.{RAMP}",
        kind=KINDS["ramp"],
        capacity=float(ramp.start * limit.unit),
        limit=ramp.start,
        per=per,
        rate=0.0,
        learn="never",
        factor=ramp.factor,
    )


def _limit(scope: str, label: str, config: LimitConfig, learn: Learn) -> Limit:
    per = period(config) if config.meter is not Meter.CONCURRENCY else None
    unit = _MICRO if config.meter is Meter.COST_USD else 1
    window = _window(config)
    capacity = (config.burst if config.burst is not None else config.limit) * unit
    rate = config.limit * unit / (per * _MICRO) if per and window == "bucket" else 0.0
    # Whatever changes the meaning of the stored cell makes another limit of it. The kind in
    # the last two bits lets scripts read a state without its policy (lua/lib/layout).
    shape = f"{scope}|{config.name}|{config.meter}|{window}|{_shape_of[window](config, per)}"
    digest = blake2b(shape.encode(), digest_size=6)
    return Limit(
        id=int.from_bytes(digest.digest(), "big") * _IN_AN_ID + KINDS[window] - 1,
        name=f"{label}.{config.name}",
        scope=scope,
        meter=config.meter,
        kind=KINDS[window],
        unit=unit,
        capacity=float(capacity),
        limit=config.limit,
        per=per,
        rate=rate,
        config=config,
        learn=learn,
    )


def _window(config: LimitConfig) -> str:
    return "concurrency" if config.meter is Meter.CONCURRENCY else config.window or "bucket"


_shape_of: dict[str, Callable[[LimitConfig, float | None], str]] = {
    "bucket": lambda _config, _per: "",
    "sliding": lambda _config, per: f"{per}/{SLOTS_OF_A_WINDOW}",
    "calendar": lambda config, _per: f"{config.per}/{config.timezone}",
    "concurrency": lambda _config, _per: "",
}
