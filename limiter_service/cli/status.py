"""`sluicegate status`: how a running service is, in one look."""

import msgspec
import typer
from rich.console import Console

from limiter_service.cli.asking import Output, Unanswered, show_json
from limiter_service.cli.ending import FOUND, REFUSED, fail
from limiter_service.cli.options import HERE, Key, Shown, Url
from limiter_service.cli.overview import drawn, look

_WIDE_ENOUGH = 160


def status(url: Url = HERE, api_key: Key = None, output: Shown = Output.TABLE) -> None:
    """Show whether the service is ready, its replicas, breakers, queues and tightest limits.

    Exit codes: 0 ready, 1 the service refused or cannot be reached, 2 wrong options, 3 it is
    not ready, drained for example.

    Example: sluicegate status --url http://limiter:8080
    """
    try:
        view = look(url, api_key)
    except Unanswered as error:
        fail(str(error), REFUSED)
    if output is Output.JSON:
        show_json(msgspec.to_builtins(view))
    else:
        console = Console()
        if not console.is_terminal:  # whoever reads a pipe wants whole names
            console.width = _WIDE_ENOUGH
        console.print(drawn(view, console.width, bars=False))
    if view.unready is not None:
        raise typer.Exit(FOUND)
