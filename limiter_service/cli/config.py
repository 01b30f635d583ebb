"""`sluicegate config`: the configuration of a running service."""

from pathlib import Path
from typing import Annotated, Any

import typer

from limiter_service.cli.asking import Output, ask, show_json, table
from limiter_service.cli.ending import FOUND, WRONG_WORDS, fail
from limiter_service.cli.options import HERE, Key, Shown, Url, Why
from limiter_service.cli.words import clock

config = typer.Typer(
    name="config",
    help="Look at the configuration of a running service, try another, read it again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FORMATS = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}
_MOST_SHOWN = 50


@config.command()
def show(url: Url = HERE, api_key: Key = None, output: Shown = Output.TABLE) -> None:
    """Show what is in force at the replica that answers.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options,
    3 the file has a newer text that is refused.

    Example: sluicegate config show --output json
    """
    view = ask(url, "/v1/config", key=api_key)
    if output is Output.JSON:
        show_json(view)
    else:
        typer.echo(f"{view['replica']}: version {view['version']} of {view['source']}")
        typer.echo(f"read {clock(view['read_at'])}")
        pools = view["config"]["pools"]
        rows = [[name, pool["provider"], *_counts(pool)] for name, pool in pools.items()]
        typer.echo(table(["POOL", "PROVIDER", "MODELS", "TENANTS", "LIMITS"], rows))
        _tell_faults(view["faults"])
    if view["faults"]:
        raise typer.Exit(FOUND)


@config.command()
def validate(
    file: Annotated[Path, typer.Argument(help="Pools file: .yaml, .yml, .toml or .json.")],
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Ask a running service what it would do with a file; nothing changes.

    `sluicegate check-config` checks a file without a service.

    Exit codes: 0 it would be taken, 1 the service refused or cannot be reached, 2 wrong
    options or the file cannot be read, 3 it would be refused.

    Example: sluicegate config validate pools.yaml
    """
    form = _FORMATS.get(file.suffix.lower())
    if form is None:
        fail(f"{file}: the suffix is not known; allowed: {', '.join(_FORMATS)}", WRONG_WORDS)
    try:
        body = {"text": file.read_text(encoding="utf-8"), "format": form}
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {error}", WRONG_WORDS)
    verdict = ask(url, "/v1/config/validate", key=api_key, method="POST", body=body)
    if output is Output.JSON:
        show_json(verdict)
    elif verdict["valid"]:
        typer.echo(f"{file}: good; it would be version {verdict['version']}")
        _tell_changes(verdict["changes"])
        for note in verdict["notes"]:
            typer.echo(f"note: {note}")
    else:
        typer.echo(f"{file} would be refused:")
        _tell_faults(verdict["faults"])
    if not verdict["valid"]:
        raise typer.Exit(FOUND)


@config.command()
def reload(
    reason: Why = "", url: Url = HERE, api_key: Key = None, output: Shown = Output.TABLE
) -> None:
    """Let every replica read its pools file again, and show what that changes.

    A file with problems changes nothing; every problem is listed.

    Exit codes: 0 done, 1 the file is refused, or the service cannot be reached, 2 wrong
    options.

    Example: sluicegate config reload --reason "more tokens for checkout"
    """
    body = {"reason": reason}
    told = ask(url, "/v1/config/reload", key=api_key, method="POST", body=body)
    if output is Output.JSON:
        show_json(told)
        return
    if told["before"] == told["version"]:
        typer.echo(f"{told['replica']}: version {told['version']} as before")
    else:
        typer.echo(f"{told['replica']}: version {told['version']}, before {told['before']}")
    _tell_changes(told["changes"])


def _counts(pool: dict[str, Any]) -> list[str]:
    sections = [pool, *pool["models"].values(), *pool["tenants"].values()]
    limits = sum(len(section["limits"]) for section in sections)
    return [str(len(pool["models"])), str(len(pool["tenants"])), str(limits)]


def _tell_changes(changes: list[dict[str, Any]]) -> None:
    if not changes:
        typer.echo("it changes nothing")
        return
    rows = [[c["path"], _value(c["before"]), _value(c["after"])] for c in changes[:_MOST_SHOWN]]
    typer.echo(table(["CHANGED", "BEFORE", "AFTER"], rows))
    if len(changes) > _MOST_SHOWN:
        typer.echo(f"and {len(changes) - _MOST_SHOWN} more: --output json has them")


def _tell_faults(faults: list[dict[str, str]]) -> None:
    for fault in faults:
        typer.echo(f"  {fault['path']}: {fault['message']}")


def _value(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
