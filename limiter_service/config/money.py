"""Prices of models, and limits that need them."""

from pathlib import Path

from limiter_service.config.limits import long_name, match
from limiter_service.config.problems import ConfigProblem, note
from limiter_service.config.sections import Config, Limited, PoolConfig
from limiter_service.prices import Catalogue, PriceFileError
from limiter_wire import Meter


def catalogue_of(config: Config, base: Path | None) -> Catalogue:
    """The prices that hold where a pool has none. Raises PriceFileError."""
    name = config.price_file
    return Catalogue.of(None if name is None else (base or Path()) / name)


def check_prices(config: Config, base: Path | None, problems: list[ConfigProblem]) -> None:
    """A limit on money must be able to tell what a call costs."""
    try:
        catalogue = catalogue_of(config, base)
    except PriceFileError as error:
        note(problems, "price_file", str(error))
        return
    for name, pool in config.pools.items():
        if pool.cost_in_requests:
            continue
        for model in pool.models:
            limit = money_limit(pool, model)
            if limit is not None and not has_price(pool, model, catalogue):
                message = (
                    f"{limit} counts money, and the model has no price: give it one in "
                    f"pools.{name}.prices or in a price_file, or set cost_in_requests where "
                    "callers send cost_usd"
                )
                note(problems, f"pools.{name}.models.{model}", message)


def has_price(pool: PoolConfig, model: str, catalogue: Catalogue) -> bool:
    """Whether a model, or every model of a pattern as far as one can tell, has a price."""
    if match(pool.prices, model) is not None:
        return True
    if model.endswith("*"):
        return not catalogue.empty
    return catalogue.price(pool.provider, model) is not None


def money_limit(pool: PoolConfig, model: str) -> str | None:
    """A limit on money that calls of *model* may meet."""
    sections: list[Limited] = [pool, pool.models[model]]
    for tenant in pool.tenants.values():
        on_model: Limited | None = match(tenant.models, model)
        sections += [tenant] if on_model is None else [tenant, on_model]
    for section in sections:
        for limit in section.limits:
            if limit.meter is Meter.COST_USD:
                return limit.name or long_name(limit)
    return None
