"""What a pools file says that is allowed and probably not meant."""

from limiter_service.config import Config, PoolConfig, given_limits
from limiter_service.presets import preset_limits


def advice(config: Config) -> list[str]:
    """One line each, with the path in the file."""
    found: list[str] = []
    for name, pool in config.pools.items():
        path = f"pools.{name}"
        if not pool.models:
            found.append(f"{path}: no models, so every acquire is refused")
        found += [f"{path}.{text}" for text in _without_preset(pool)]
    return found


def _without_preset(pool: PoolConfig) -> list[str]:
    if pool.tier is None:
        return []
    return [
        f"models.{model}: no limits, and tier {pool.tier} has no figures for it"
        for model, section in pool.models.items()
        if not given_limits(section) and not model.endswith("*") and not preset_limits(pool, model)
    ]
