"""`sluicegate breakers`: look at circuits of a running service, and hold them by hand."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from limiter_service.cli.asking import Output, ask, table
from limiter_service.cli.options import HERE, Forever, Key, Resource, Shown, Ttl, Url, Why, life_of
from limiter_service.cli.words import clock, parts

breakers = typer.Typer(
    name="breakers",
    help="Look at circuit breakers of a running service, and hold them by hand.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Generation = Annotated[
    int | None, typer.Option(min=0, help="Refuse when the circuit has changed since you looked.")
]


@breakers.command()
def ls(
    pool: Annotated[str | None, typer.Option(help="Only this pool's circuits.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only circuits that are closed, open or half_open.")
    ] = None,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """List circuits and what they say about their providers.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options.
    """
    given = {"provider": pool, "state": state}
    query = "&".join(f"{name}={quote(value)}" for name, value in given.items() if value)
    found = ask(url, "/v1/breakers" + (f"?{query}" if query else ""), key=api_key)
    if output is Output.JSON:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [_row(view) for view in found["breakers"]]
    typer.echo(table(["RESOURCE", "STATE", "HELD", "RETRY AFTER", "FAILED", "CALLS"], rows))
    for provider in found["providers"]:
        if provider["verdict"] != "up":
            latch = f", latched: {provider['latch']}" if provider["latch"] else ""
            models = ", ".join(provider["open_models"]) or "none"
            typer.echo(f"{provider['pool']} is {provider['verdict']}: open {models}{latch}")


@breakers.command()
def show(
    resource: Resource, url: Url = HERE, api_key: Key = None, output: Shown = Output.TABLE
) -> None:
    """Show one circuit."""
    _show(ask(url, _path(resource), key=api_key), output)


@breakers.command(name="open")
def open_(
    resource: Resource,
    *,
    ttl: Ttl = None,
    until_cleared: Forever = False,
    reason: Why = "",
    generation: Generation = None,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Refuse all calls of a resource."""
    body = _order("open", ttl, reason, generation, forever=until_cleared)
    _show(ask(url, _path(resource, "override"), key=api_key, method="PUT", body=body), output)


@breakers.command()
def close(
    resource: Resource,
    *,
    ttl: Ttl = None,
    until_cleared: Forever = False,
    reason: Why = "",
    generation: Generation = None,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Pass all calls of a resource, whatever becomes of them; its limits still hold."""
    body = _order("closed", ttl, reason, generation, forever=until_cleared)
    _show(ask(url, _path(resource, "override"), key=api_key, method="PUT", body=body), output)


@breakers.command()
def observe(
    resource: Resource,
    *,
    ttl: Ttl = None,
    until_cleared: Forever = False,
    reason: Why = "",
    generation: Generation = None,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Pass all calls, and tell in the events when the circuit would have opened."""
    body = _order("observe", ttl, reason, generation, forever=until_cleared)
    _show(ask(url, _path(resource, "override"), key=api_key, method="PUT", body=body), output)


@breakers.command()
def clear(
    resource: Resource,
    generation: Generation = None,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Let go of a circuit that is held by hand."""
    path = _path(resource, "override", generation)
    _show(ask(url, path, key=api_key, method="DELETE"), output)


@breakers.command()
def reset(
    resource: Resource,
    generation: Generation = None,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Close a circuit, forget its failures, and lift what its pool is latched by."""
    path = _path(resource, "reset", generation)
    _show(ask(url, path, key=api_key, method="POST"), output)


def _path(resource: str, verb: str = "", generation: int | None = None) -> str:
    pool, model = parts(resource)
    path = f"/v1/breakers/{quote(pool)}/{quote(model)}" + (f"/{verb}" if verb else "")
    return path + (f"?expected_generation={generation}" if generation is not None else "")


def _order(
    mode: str, ttl: str | None, reason: str, generation: int | None, *, forever: bool
) -> dict[str, Any]:
    life = life_of(ttl, forever=forever)
    body = {"mode": mode, "ttl": life, "reason": reason}
    return body if generation is None else body | {"expected_generation": generation}


def _row(view: dict[str, Any]) -> list[str]:
    held = view["override"]
    seen = view["window"]
    return [
        view["resource"],
        view["state"],
        held["mode"] if held else "",
        _duration(view["retry_after"]) if view["reason"] else "",
        str(seen["fail"]),
        str(seen["ok"] + seen["fail"]),
    ]


def _show(view: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(view, indent=2))
        return
    seen, probes, held = view["window"], view["probes"], view["override"]
    lines = [
        ("resource", view["resource"]),
        ("state", view["state"] + _ago(view["since"])),
        ("effective", view["effective"]),
        ("generation", str(view["generation"])),
    ]
    if view["reason"]:
        lines.append(("refuses", f"{view['reason']}, {_duration(view['retry_after'])}"))
    counts = f"{seen['ok']} ok, {seen['fail']} failed, {seen['slow']} slow"
    lines.append(("window", f"{counts}, {seen['throttle']} throttled in {seen['seconds']:g} s"))
    for name in ("failure", "slow", "throttle"):
        share = view["rates"][name]
        most = share["threshold"]
        against = "never opens it" if most is None else f"opens it at {most:.0%}"
        lines.append((f"{name} rate", f"{share['rate']:.0%}, {against}"))
    lines.append(("in a row", f"{view['consecutive']} failed"))
    if view["latch"]:
        lines.append(("latched", view["latch"]))
    elif view["credentials_refused"]:
        lines.append(("credentials", f"refused {view['credentials_refused']} times in a row"))
    if view["cooldown_until"]:
        lines.append(("cools down", f"until {clock(view['cooldown_until'])}"))
    if view["ramp"] < 1:
        lines.append(("ramp", f"buckets refill at {view['ramp']:.0%} of their rate"))
    under_way = f"{probes['held']} of {probes['limit']} under way"
    passed = f"{probes['ok']} of {probes['needed']} passed"
    lines.append(("probes", f"{under_way}, {passed}, {probes['lost']} lost"))
    longer = f"next for {view['next_open_duration']:g} s"
    lines.append(("opened", f"{view['open_count']} times; {longer}"))
    if held:
        until = f"until {clock(held['until'])}" if held["until"] else "until cleared"
        lines.append(("held", f"{held['mode']} by {held['actor']}, {until}: {held['reason']}"))
    lines += [
        ("failed", f"{each['outcome']}{_details(each)}, {clock(each['time'])}")
        for each in view["last_errors"]
    ]
    typer.echo("\n".join(f"{name:14}{text}" for name, text in lines))


def _details(error: dict[str, Any]) -> str:
    parts = [f"status {error['status']}"] if error["status"] else []
    parts += [f"message {error['digest']}"] if error["digest"] else []
    return f" ({', '.join(parts)})" if parts else ""


def _duration(wait: float | None) -> str:
    return "until cleared" if wait is None else f"{wait:.1f} s"


def _ago(since: float | None) -> str:
    return f" since {clock(since)}" if since else ""
