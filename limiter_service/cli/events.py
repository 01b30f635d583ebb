"""`sluicegate events`: what happens, as it happens."""

import http.client
import json
import time
import urllib.error
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from limiter_service.cli.asking import (
    Output,
    Unanswered,
    asking,
    opened,
    refused,
    unreachable,
)
from limiter_service.cli.ending import REFUSED, fail
from limiter_service.cli.options import HERE, Key, Shown, Url
from limiter_service.cli.words import clock, lasting

_SILENCE = 40.0  # the service says something every 15 s
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_ABOUT = ("time", "type", "resource", "from", "to", "actor", "reason", "lasts")


def events(
    *,
    follow: Annotated[bool, typer.Option(help="Wait for further events, until Ctrl-C.")] = False,
    after: Annotated[
        str | None,
        typer.Option(help="Go on after the event with this id. Default: all; with --follow: now."),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type; may be given more than once")
    ] = None,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Show transitions, overrides, reloads and orders of the whole fleet.

    With --output json each event is a line, with its id. A connection that breaks is made
    again, at whatever replica answers, and goes on after the last event.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options.

    Example: sluicegate events --follow --type breaker --type override
    """
    last = after if after is not None or follow else "0"
    pause, connected = _FIRST_PAUSE, False
    try:
        while True:
            try:
                for name, data in _stream(url, api_key, last, follow=follow):
                    last, pause, connected = name or last, _FIRST_PAUSE, True
                    if data is not None and (not kind or data["type"] in kind):
                        typer.echo(_line(name, data, output))
                if not follow:
                    return
            except Unanswered as error:
                final = error.status is not None and error.status < 500  # noqa: PLR2004
                if not follow or final or not connected:
                    fail(str(error), REFUSED)
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
    except KeyboardInterrupt:
        return


def _stream(
    url: str, key: str | None, last: str | None, *, follow: bool
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Ids and events as they come; an id without an event is where to go on. Raises Unanswered."""
    request = asking(url, "/v1/events" if follow else "/v1/events?follow=false", key=key)
    request.add_header("accept", "text/event-stream")
    if last is not None:
        request.add_header("last-event-id", last)
    try:
        with opened(request, _SILENCE) as answer:
            yield from _blocks(line.decode().rstrip("\r\n") for line in answer)
    except urllib.error.HTTPError as error:
        raise refused(error) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise unreachable(url, error) from error


def _blocks(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    name, data = "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "id":
            name = value
        elif field == "data":
            data += value
        elif not line and name:
            yield name, json.loads(data) if data else None
            data = ""


def _line(name: str, event: dict[str, Any], output: Output) -> str:
    if output is Output.JSON:
        return json.dumps({"id": name} | event)
    said = [clock(event["time"]), event["type"], event.get("resource") or event.get("replica", "")]
    if "from" in event or "to" in event:
        said.append(f"{event.get('from', '?')} -> {event.get('to', '?')}")
    if "lasts" in event:
        said.append(f"for {lasting(event['lasts'])}")
    if "actor" in event:
        said.append(f"by {event['actor']}")
    said += [f"{field} {event[field]}" for field in sorted(event.keys() - {*_ABOUT, "replica"})]
    if event.get("reason"):
        said.append(f"({event['reason']})")
    return "  ".join(said)
