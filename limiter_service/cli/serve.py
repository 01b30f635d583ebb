"""`sluicegate serve`: run the service."""

from pathlib import Path
from typing import Annotated, Any

import typer

from limiter_service.cli.ending import fail
from limiter_service.cli.options import settings_of
from limiter_service.config import ConfigError
from limiter_service.embedded import EmbeddedError
from limiter_service.serving import ServeError, run


def serve(  # one parameter per option
    config: Annotated[
        Path | None, typer.Option(help="Pools file (YAML, TOML, JSON); reloaded when it changes.")
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(
            help="Store: redis://, rediss://, unix://, redis+sentinel://host,host/service or "
            "redis+cluster://host,host. Default: an embedded Valkey."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free. [8080]")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded Valkey keeps its data.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; more than one needs --redis-url. [1]")
    ] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option(help="Serve callers without a key on any address.")
    ] = None,
    allow_eviction: Annotated[
        bool | None,
        typer.Option(help="Serve over a store that may evict, and so forget what was spent."),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. [info]")
    ] = None,
) -> None:
    """Serve the shared budget over HTTP.

    Every option is also read from the environment, as SLUICEGATE_CONFIG,
    SLUICEGATE_REDIS_URL and so on; the command line wins.

    Exit codes: 0 stopped as asked, 1 could not start, 2 wrong options or configuration.
    """
    given: dict[str, Any] = {
        "config": config,
        "redis_url": redis_url,
        "host": host,
        "port": port,
        "state_dir": state_dir,
        "workers": workers,
        "allow_anonymous": allow_anonymous,
        "allow_eviction": allow_eviction,
        "log_level": log_level,
    }
    settings = settings_of(given)
    try:
        run(settings)
    except (ConfigError, ServeError) as error:
        fail(str(error), 2)
    except EmbeddedError as error:
        fail(str(error), 1)
