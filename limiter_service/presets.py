"""A pool's limits as they are in force: what the file says, else what its provider does.

The file always wins, field by field. Only limits on pool and model are shaped by the
provider, whose limits these are; limits on tenants are budgets of our own. Pure.
"""

from msgspec.structs import replace

from limiter_service.config import (
    PERIODS,
    SHORT_FORMS,
    LimitConfig,
    Limited,
    PoolConfig,
    given_limits,
    period,
    settled,
)
from limiter_wire import Meter
from limiter_wire.providers import Profile, profile
from limiter_wire.providers.presets import ceiling

_PROVIDERS_OWN = {"pool", "model"}
_NAMES = {seconds: name for name, seconds in PERIODS.items()}
_MONTHLY = LimitConfig(
    name="requests-per-month", meter=Meter.REQUESTS, limit=1, per="month", window="calendar"
)


def limits_in_force(
    pool: PoolConfig, scope: str, model: str, section: Limited
) -> list[LimitConfig]:
    """The limits of a *section* on *scope*, complete, for calls of *model*."""
    given = given_limits(section)
    if scope not in _PROVIDERS_OWN:
        return [settled(limit) for limit in given]
    if scope == "model" and not given and pool.tier is not None:
        given = preset_limits(pool, model)
    known = profile(pool.provider)
    return [settled(shaped(limit, known, model)) for limit in given]


def preset_limits(pool: PoolConfig, model: str) -> list[LimitConfig]:
    """What the pool's tier allows *model*; nothing where no figure is known."""
    found = ceiling(profile(pool.provider).name, pool.tier or "", model)
    if found is None:
        return []
    forms = {**SHORT_FORMS, "requests_per_month": _MONTHLY}
    return [replace(forms[name], limit=float(amount)) for name, amount in found.amounts().items()]


def shaped(limit: LimitConfig, known: Profile, model: str) -> LimitConfig:
    """*limit* with what it leaves open filled in as the provider counts and enforces."""
    return _charged(_windowed(limit, known), known, model)


def _charged(limit: LimitConfig, known: Profile, model: str) -> LimitConfig:
    charge = known.charge(limit.meter)
    if charge is None:
        return limit
    return replace(
        limit,
        reserve=limit.reserve or charge.reserve,
        settle=limit.settle or charge.settle,
        weights={**charge.weights_of(model), **limit.weights},
    )


def _windowed(limit: LimitConfig, known: Profile) -> LimitConfig:
    if limit.meter is Meter.CONCURRENCY:
        return limit
    length = period(limit)
    name = None if length is None else _NAMES.get(length)
    shape = known.shape(limit.meter, name)
    if shape is None or length is None or name is None:
        return limit
    if limit.window is None and limit.burst is None and shape.window != "bucket":
        zone = shape.timezone if limit.timezone == "UTC" else limit.timezone
        return replace(limit, window=shape.window, per=name, timezone=zone)
    if (
        shape.burst_seconds is None
        or limit.burst is not None
        or limit.window not in {None, "bucket"}
    ):
        return limit
    return replace(limit, burst=max(1.0, limit.limit * shape.burst_seconds / length))
