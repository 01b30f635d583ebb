"""How a command ends when it cannot do what was asked."""

from typing import NoReturn

import typer


def fail(message: str, code: int) -> NoReturn:
    """Say why on stderr and exit with *code*."""
    typer.echo(f"sluicegate: {message}", err=True)
    raise typer.Exit(code)
