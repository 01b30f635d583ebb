"""`sluicegate queue`: who waits, and for how long."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from limiter_service.cli.asking import Output, ask, show_json, table
from limiter_service.cli.options import HERE, Key, Shown, Url
from limiter_service.cli.words import lasting


def queue(
    pool: Annotated[str | None, typer.Argument(help="Only this pool; default: all")] = None,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Show who waits, by resource, tenant and priority, and how long a new caller would.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options.

    Example: sluicegate queue openai
    """
    pools = [pool] if pool else [*ask(url, "/v1/config", key=api_key)["config"]["pools"]]
    views = [ask(url, f"/v1/queue/{quote(name)}", key=api_key) for name in pools]
    if output is Output.JSON:
        show_json(views[0] if pool else {"pools": views})
        return
    for view in views:
        typer.echo(head(view))
        if view["lines"]:
            heads = ["RESOURCE", "TENANT", "PRIORITY", "WAIT", "OLDEST", "PREDICTED", "P90", ""]
            typer.echo(table(heads, [_row(line) for line in view["lines"]]))


def head(view: dict[str, Any]) -> str:
    """The queue of one pool in a line."""
    if not view["depth"]:
        return f"{view['pool']}: nobody waits"
    oldest = lasting(view["oldest"])
    return f"{view['pool']}: {view['depth']} of {view['max_waiters']} wait, the oldest for {oldest}"


def _row(line: dict[str, Any]) -> list[str]:
    return [
        line["resource"],
        line["tenant"],
        str(line["priority"]),
        str(line["waiters"]),
        lasting(line["oldest"]),
        lasting(line["predicted_wait"]),
        lasting(line["predicted_wait_p90"]),
        "a limit of its own tenant is short" if line["blocked_by_tenant"] else "",
    ]
