"""`sluicegate check-config`: read a pools file as the service would, and say what is wrong."""

from pathlib import Path
from typing import Annotated

import typer

from limiter_service.cli.ending import fail
from limiter_service.config import ConfigError, load
from limiter_service.config_advice import advice


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
    for line in advice(config):
        typer.echo(f"  note: {line}")
