"""The pools files of the two limiters under test, in compressed time. Pure."""

from collections.abc import Sequence

import msgspec
import yaml
from msgspec.structs import replace

from limiter_service.config import (
    BreakerConfig,
    Config,
    LimitConfig,
    ModelConfig,
    PoolConfig,
    QueueConfig,
    period,
)
from rate_errors.providers import Limits, Provider
from rate_errors.worker import PATIENCE, POOL


def native(provider: Provider, limits: Limits, speed: float) -> str:
    """A pool that names its provider. YAML.

    The limits are what the preset makes of the short figures for real minutes; then each
    period is divided by *speed*. Amounts stay, so bursts keep their share of the period.
    """
    return _pools(provider.model, compressed(provider.preset(limits), speed), provider.name)


def naive(provider: Provider, limits: Limits, speed: float) -> str:
    """A pool of nobody in particular: buckets of a minute, and no circuit. YAML."""
    return _pools(provider.model, compressed(provider.naive(limits), speed), "generic")


def compressed(limits: Sequence[LimitConfig], speed: float) -> list[LimitConfig]:
    """*limits* with periods that pass *speed* times faster."""
    found = []
    for limit in limits:
        seconds = period(limit)
        assert seconds is not None
        found.append(replace(limit, per=f"{seconds / speed:.9f}s"))
    return found


def _pools(model: str, limits: list[LimitConfig], provider: str) -> str:
    pool = PoolConfig(
        provider=provider,
        models={model: ModelConfig(limits=limits)},
        queue=QueueConfig(max_waiters=100_000, max_wait=PATIENCE),
        breaker=BreakerConfig(enabled=provider != "generic"),
    )
    return yaml.safe_dump(msgspec.to_builtins(Config(pools={POOL: pool})), sort_keys=False)
