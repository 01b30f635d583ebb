"""How a command ends when it cannot do what was asked."""

from typing import NoReturn

import typer

REFUSED = 1
"""The service refused, or cannot be reached."""

WRONG_WORDS = 2
"""Options, arguments or files that cannot be meant."""

FOUND = 3
"""The command has found what it was to look for: something is wrong."""


def fail(message: str, code: int) -> NoReturn:
    """Say why on stderr and exit with *code*."""
    typer.echo(f"sluicegate: {message}", err=True)
    raise typer.Exit(code)
