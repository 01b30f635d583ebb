"""`sluicegate stats`: what has happened."""

from typing import Annotated, Any

import typer

from limiter_service.cli.asking import Output, ask, show_json, table
from limiter_service.cli.ending import WRONG_WORDS, fail
from limiter_service.cli.options import HERE, Key, Shown, Url
from limiter_service.cli.words import amount, clock, lasting
from limiter_service.config import seconds

_TITLES = {
    "resources": "By resource",
    "tenants": "By tenant",
    "costs": "Usage and cost",
    "waits": "Waits in the queue",
    "trials": "Shadow limits",
}
_COLUMNS = ("granted", "refused", "settled", "input_tokens", "output_tokens", "cost_usd")
_MONEY = {"cost_usd"}
_TIMES = ("wait", "error", "absolute_error", "latency", "ttft", "p50", "p90", "p95", "p99", "max")


def stats(
    *,
    since: Annotated[
        str | None, typer.Option(help='How far back, where the service keeps it: "1h", "1d".')
    ] = None,
    series: Annotated[
        bool,
        typer.Option(
            "--series",
            help="Step by step instead, of all resources together; JSON has each of them.",
        ),
    ] = False,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Show counters, waits, usage and cost, together or step by step.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options.

    Example: sluicegate stats --since 1h
    """
    query = {
        "since": None if since is None else f"{_back(since):g}",
        "series": "true" if series else None,
    }
    found = ask(url, "/v1/stats", key=api_key, query=query)
    if output is Output.JSON:
        show_json(found)
        return
    typer.echo(f"the last {lasting(found['since'])}")
    if series:
        typer.echo(_steps(found))
        return
    for name, title in _TITLES.items():
        rows = [_flat(row) for row in found.get(name, [])]
        if rows:
            heads = list(rows[0])
            typer.echo(f"\n{title}")
            typer.echo(table([h.upper().replace("_", " ") for h in heads], _cells(rows, heads)))


def _steps(found: dict[str, Any]) -> str:
    """A row for each step."""
    rows = [
        [
            clock(begin),
            *(_cell(name, sum(s[name][i] for s in found["series"])) for name in _COLUMNS),
        ]
        for i, begin in enumerate(found["times"])
    ]
    return table(["BEGUN", *(name.upper().replace("_", " ") for name in _COLUMNS)], rows)


def _back(since: str) -> float:
    try:
        return seconds(since)
    except ValueError as error:
        fail(f"--since: {error}", WRONG_WORDS)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its parts as columns; what has no figures at all is left out by its caller."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if not isinstance(value, dict):
            found[name] = value
        elif name in {"refused", "outcomes"}:
            found[name] = ", ".join(f"{key} {count}" for key, count in sorted(value.items())) or "-"
        else:
            found |= {f"{name}_{part}": each for part, each in value.items() if part != "count"}
    return found


def _cells(rows: list[dict[str, Any]], heads: list[str]) -> list[list[str]]:
    return [[_cell(head, row.get(head)) for head in heads] for row in rows]


def _cell(head: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if head in _MONEY:
        return amount(value, head)
    if head == "covered":
        return f"{value:.0%}"
    if any(head == name or head.startswith(f"{name}_") for name in _TIMES):
        return f"{value:.3f} s"
    return amount(value)
