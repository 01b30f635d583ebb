"""`sluicegate replicas`, `drain`, `undrain`, `log-level`: the replicas themselves."""

import time
from typing import Annotated, Any

import typer

from limiter_service.cli.asking import Output, ask, show_json, table
from limiter_service.cli.ending import FOUND, REFUSED, WRONG_WORDS, fail
from limiter_service.cli.options import (
    HERE,
    Forever,
    Key,
    Replica,
    Shown,
    Ttl,
    Url,
    Why,
    life_of,
)
from limiter_service.cli.words import clock, lasting

_LEVELS = ("debug", "info", "warning", "error")
_PATIENCE, _PAUSE = 5.0, 0.1

Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Return when every replica that is meant obeys.")
]


def replicas(url: Url = HERE, api_key: Key = None, output: Shown = Output.TABLE) -> None:
    """List the replicas over the service's store, and what is ordered of them.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options,
    3 replicas differ in their configuration, or one refuses its file.

    Example: sluicegate replicas --output json
    """
    view = ask(url, "/v1/replicas", key=api_key)
    _show(view, output)
    if not view["agreed"] or any(each["config_problem"] for each in view["replicas"]):
        raise typer.Exit(FOUND)


def drain(
    *,
    replica: Replica = None,
    ttl: Ttl = None,
    until_cleared: Forever = False,
    reason: Why = "",
    wait: Wait = True,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Let one replica, or all, grant nothing new; what is granted can still be settled.

    New acquires are answered 503 `shutting_down`, readiness fails, and callers that wait are
    handed over: they ask another replica, and keep their places.

    Exit codes: 0 done, 1 the service refused, cannot be reached or does not obey within five
    seconds, 2 wrong options.

    Example: sluicegate drain --replica limiter-0-1f3a --ttl 10m --reason "node is replaced"
    """
    body = {
        "ttl": life_of(ttl, forever=until_cleared),
        "reason": reason,
        "replica": replica,
    }
    view = ask(url, "/v1/drain", key=api_key, method="PUT", body=body)
    _obeyed(view, replica, "draining", True, wait=wait, url=url, key=api_key, output=output)


def undrain(
    *,
    replica: Replica = None,
    reason: Why = "",
    wait: Wait = True,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Take a drain back: with --replica the order to that one, else the one to all.

    Exit codes: as for drain.

    Example: sluicegate undrain --replica limiter-0-1f3a
    """
    query = {"replica": replica, "reason": reason}
    view = ask(url, "/v1/drain", key=api_key, method="DELETE", query=query)
    held = {order["replica"] for order in view["orders"] if order["kind"] == "drain"}
    if held & {"*", replica} or (replica is None and held):
        others = "the order to all" if "*" in held else f"orders to {', '.join(sorted(held))}"
        typer.echo(f"sluicegate: note: {others} still hold", err=True)
        wait = False
    _obeyed(view, replica, "draining", False, wait=wait, url=url, key=api_key, output=output)


def log_level(
    level: Annotated[
        str | None, typer.Argument(help="debug, info, warning or error; none with --clear")
    ] = None,
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Log again as started.")] = False,
    replica: Replica = None,
    ttl: Ttl = None,
    until_cleared: Forever = False,
    reason: Why = "",
    wait: Wait = True,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Let one replica, or all, log more or less for a while.

    Exit codes: as for drain.

    Example: sluicegate log-level debug --ttl 10m --reason "waits are too long"
    """
    if clear == (level is not None):
        fail(f"say one of: a level ({', '.join(_LEVELS)}), --clear", WRONG_WORDS)
    if clear:
        query = {"replica": replica, "reason": reason}
        view = ask(url, "/v1/log-level", key=api_key, method="DELETE", query=query)
        _show(view, output)
        return
    if level not in _LEVELS:
        fail(f"{level!r} is no level; there are: {', '.join(_LEVELS)}", WRONG_WORDS)
    body = {
        "level": level,
        "ttl": life_of(ttl, forever=until_cleared),
        "reason": reason,
        "replica": replica,
    }
    view = ask(url, "/v1/log-level", key=api_key, method="PUT", body=body)
    _obeyed(view, replica, "log_level", level, wait=wait, url=url, key=api_key, output=output)


def _obeyed(
    view: dict[str, Any],
    replica: str | None,
    field: str,
    wanted: object,
    *,
    wait: bool,
    url: str,
    key: str | None,
    output: Output,
) -> None:
    """Show the fleet, when the replicas that are meant say that they obey."""
    until = time.monotonic() + _PATIENCE
    while wait and (late := _late(view, replica, field, wanted)):
        if time.monotonic() > until:
            names = ", ".join(late)
            fail(f"ordered, and not obeyed within {_PATIENCE:g} s by {names}", REFUSED)
        time.sleep(_PAUSE)
        view = ask(url, "/v1/replicas", key=key)
    _show(view, output)


def _late(view: dict[str, Any], replica: str | None, field: str, wanted: object) -> list[str]:
    own = {o["replica"] for o in view["orders"]} if replica is None else set()
    meant = [r for r in view["replicas"] if replica in {None, r["name"]} and r["name"] not in own]
    return [each["name"] for each in meant if each[field] != wanted]


def _show(view: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        show_json(view)
        return
    heads = ["REPLICA", "VERSION", "UP", "CONFIGURATION", "LOGS", "STATE"]
    typer.echo(table(heads, [_row(each) for each in view["replicas"]]))
    for order in view["orders"]:
        until = f"until {clock(order['until'])}" if order["until"] else "until cleared"
        whom = "all" if order["replica"] == "*" else order["replica"]
        why = f": {order['reason']}" if order["reason"] else ""
        kind = order["kind"].replace("_", " ")
        typer.echo(f"{kind} {order['value']} for {whom}, by {order['actor']} {until}{why}")
    if not view["agreed"]:
        typer.echo("replicas differ in their configuration: compare `sluicegate config show`")
    for each in view["replicas"]:
        if each["config_problem"]:
            typer.echo(f"{each['name']} refuses its file: {each['config_problem']}")


def _row(card: dict[str, Any]) -> list[str]:
    up = lasting(max(0.0, time.time_ns() / 1e9 - card["started"]))
    state = "draining" if card["draining"] else "serving"
    return [card["name"], card["version"], up, card["config"], card["log_level"], state]
