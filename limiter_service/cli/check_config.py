"""`sluicegate check-config`: read a pools file as the service would, and say what is wrong."""

from pathlib import Path
from typing import Annotated

import typer

from limiter_service.cli.ending import fail
from limiter_service.config import Config, ConfigError, limits_of, load, match
from limiter_wire import Meter


def check_config(
    file: Annotated[Path, typer.Argument(help="Pools file: .yaml, .yml, .toml or .json.")],
) -> None:
    """Check a pools file without starting anything.

    Exit codes: 0 the file is good, 2 it is not; then every problem is listed with its path.
    """
    try:
        config = load(file)
    except ConfigError as error:
        fail(str(error), 2)
    models = sum(len(pool.models) for pool in config.pools.values())
    typer.echo(f"{file}: good; {len(config.pools)} pools, {models} models")
    for warning in warnings(config):
        typer.echo(f"  warning: {warning}")


def warnings(config: Config) -> list[str]:
    """What is allowed and probably not meant."""
    found = [
        f"pools.{name}: no models, so every acquire is refused"
        for name, pool in config.pools.items()
        if not pool.models
    ]
    for name, pool in config.pools.items():
        for model, section in pool.models.items():
            limits = [*limits_of(pool), *limits_of(section)]
            costs = [limit for limit in limits if limit.meter is Meter.COST_USD]
            if costs and match(pool.prices, model) is None:
                found.append(
                    f"pools.{name}.models.{model}: {costs[0].name} counts money, and there is no "
                    f"price: callers must send cost_usd"
                )
    return found
