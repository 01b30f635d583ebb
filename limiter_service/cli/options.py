"""Options that several commands have, with one meaning everywhere."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from limiter_service.cli.asking import Output
from limiter_service.cli.ending import WRONG_WORDS, fail
from limiter_service.config import seconds
from limiter_service.settings import PREFIX, Settings

HERE = "http://127.0.0.1:8080"

Resource = Annotated[str, typer.Argument(help="pool/model")]
Url = Annotated[
    str, typer.Option(envvar="SLUICEGATE_URL", help="Where the service listens. [SLUICEGATE_URL]")
]
Key = Annotated[
    str | None, typer.Option(help="API key, where there are keys. [SLUICEGATE_API_KEY]")
]
Shown = Annotated[Output, typer.Option(help="For people, or as the service answers.")]
Ttl = Annotated[
    str | None, typer.Option(help='How long: seconds, "90s", "5m", "1h". Or give --until-cleared.')
]
Forever = Annotated[bool, typer.Option("--until-cleared", help="Until somebody clears it.")]
Why = Annotated[str, typer.Option(help="Told to whoever looks, and in the events.")]
Tenant = Annotated[str, typer.Option(help="Whose limits, where they depend on it.")]
Replica = Annotated[
    str | None, typer.Option(help="Only this replica, as `sluicegate replicas` names it.")
]


def life_of(ttl: str | None, *, forever: bool) -> float | None:
    """Seconds that an order holds, None until it is cleared. Ends the command when neither or
    both are said.
    """
    if (ttl is None) == (not forever):
        fail("say for how long: --ttl 10m, or --until-cleared", WRONG_WORDS)
    try:
        return None if ttl is None else seconds(ttl)
    except ValueError as error:
        fail(f"--ttl: {error}", WRONG_WORDS)


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings of the environment, with what options give. Ends the command for values that
    cannot be meant.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0])
            option = f"--{name.replace('_', '-')} ({PREFIX}{name.upper()})"
            typer.echo(f"{option}: {problem['input']!r}: {problem['msg']}", err=True)
        raise typer.Exit(WRONG_WORDS) from None
