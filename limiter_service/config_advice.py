"""What a pools file says that is allowed and probably not meant, or not in force yet."""

from limiter_service.config import Config, PoolConfig, given_limits
from limiter_service.presets import preset_limits

NOT_IN_FORCE = {
    "on_store_loss": "without its store the service answers 503, as with `closed`",
    "durability": "grants are not awaited on replicas",
}
"""Sections of a pool that are read and checked, and that this version does not act on."""


def advice(config: Config) -> list[str]:
    """One line each, with the path in the file."""
    found: list[str] = []
    for name, pool in config.pools.items():
        path = f"pools.{name}"
        found += [f"{path}.{key}: {text}" for key, text in _not_in_force(pool)]
        if not pool.models:
            found.append(f"{path}: no models, so every acquire is refused")
        found += [f"{path}.{text}" for text in _without_preset(pool)]
    return found


def _not_in_force(pool: PoolConfig) -> list[tuple[str, str]]:
    default = PoolConfig()
    return [
        (key, text)
        for key, text in NOT_IN_FORCE.items()
        if getattr(pool, key) != getattr(default, key)
    ]


def _without_preset(pool: PoolConfig) -> list[str]:
    if pool.tier is None:
        return []
    return [
        f"models.{model}: no limits, and tier {pool.tier} has no figures for it"
        for model, section in pool.models.items()
        if not given_limits(section) and not model.endswith("*") and not preset_limits(pool, model)
    ]
