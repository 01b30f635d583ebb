"""`sluicegate limits`: look at limits of a running service, and hold them by hand."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from limiter_service.cli.asking import Output, ask, show_json, table
from limiter_service.cli.options import (
    HERE,
    Forever,
    Key,
    Resource,
    Shown,
    Tenant,
    Ttl,
    Url,
    Why,
    life_of,
)
from limiter_service.cli.words import amount, clock, lasting, parts

limits = typer.Typer(
    name="limits",
    help="Look at limits of a running service, and hold them by hand.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="The limit, as `limits ls` or the pools file names it.")]


@limits.command()
def ls(
    resource: Annotated[str | None, typer.Argument(help="pool/model; default: all")] = None,
    tenant: Tenant = "default",
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """List limits: what is left, and whether something else than the file is in force.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options.

    Example: sluicegate limits ls openai/gpt-4o --tenant checkout
    """
    path = "/v1/resources"
    if resource is not None:
        pool, model = parts(resource)
        path += f"/{quote(pool)}/{quote(model)}"
    found = ask(url, path, key=api_key, query={"tenant": tenant})
    if output is Output.JSON:
        show_json(found)
        return
    views = [found] if resource is not None else found["resources"]
    rows = [_row(view["resource"], limit) for view in views for limit in view["limits"]]
    heads = ["RESOURCE", "LIMIT", "COUNTS", "LEFT", "OF", "PER", "FULL IN", "IN FORCE"]
    typer.echo(table(heads, rows) if rows else "no limits: no resource is configured or in use")


@limits.command(name="set")
def set_(
    resource: Resource,
    name: Name,
    limit: Annotated[float, typer.Argument(min=0, help="The amount to hold it to.")],
    *,
    ttl: Ttl = None,
    until_cleared: Forever = False,
    reason: Why = "",
    tenant: Tenant = "default",
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Hold a limit to another value than that of the file, for the whole fleet.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options.

    Example: sluicegate limits set openai/gpt-4o tpm 15000 --ttl 1h --reason "shared account"
    """
    path = _path(resource, name)
    body = {"limit": limit, "ttl": life_of(ttl, forever=until_cleared), "reason": reason}
    query = {"tenant": tenant}
    view = ask(url, path, key=api_key, method="PUT", body=body, query=query)
    _show(resource, view, output)


@limits.command()
def clear(
    resource: Resource,
    name: Name,
    tenant: Tenant = "default",
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Let go of a limit that is held by hand.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options.

    Example: sluicegate limits clear openai/gpt-4o tpm
    """
    path = _path(resource, name)
    view = ask(url, path, key=api_key, method="DELETE", query={"tenant": tenant})
    _show(resource, view, output)


def _path(resource: str, name: str) -> str:
    pool, model = parts(resource)
    return f"/v1/limits/{quote(pool)}/{quote(model)}/{quote(name, safe='')}/override"


def _row(resource: str, limit: dict[str, Any]) -> list[str]:
    meter = limit["meter"]
    return [
        resource,
        limit["name"],
        meter,
        amount(limit["remaining"], meter),
        amount(limit["limit"], meter),
        "-" if meter == "concurrency" else lasting(limit["per"]),
        "-" if meter == "concurrency" else lasting(limit["reset_after"]),
        in_force(limit),
    ]


def in_force(limit: dict[str, Any]) -> str:
    """What of a limit is another than in the file, in words."""
    meter, said = limit["meter"], []
    if held := limit["override"]:
        until = f"until {clock(held['until'])}" if held["until"] else "until cleared"
        why = f": {held['reason']}" if held["reason"] else ""
        said.append(f"held by {held['actor']} {until}{why}")
    elif limit["learned"] is not None:
        said.append(f"learned from the provider, file says {amount(limit['configured'], meter)}")
    if limit["shadow"]:
        said.append("shadow: never refuses")
    if limit["share"] < 1:
        said.append(f"rate cut to {limit['share']:.0%}")
    if limit["burst"] < 1:
        said.append(f"burst cut to {limit['burst']:.0%}")
    return "; ".join(said) or "the file"


def _show(resource: str, view: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        show_json(view)
        return
    meter = view["meter"]
    left, whole = amount(view["remaining"], meter), amount(view["limit"], meter)
    typer.echo(f"{resource} {view['name']}: {left} of {whole} left; in force: {in_force(view)}")
