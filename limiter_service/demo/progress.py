"""How far the demo is: a bar on a terminal, now and then a line elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from limiter_service.demo.messages import Ending, Finished

# Without a terminal: a line for each of so many parts of a run.
_LINES = 5


class Tally(msgspec.Struct, kw_only=True):
    """What happened so far in a run of `calls`."""

    calls: int
    finished: int = 0
    given_up: int = 0
    failed: int = 0
    refused: int = 0

    def count(self, call: Finished) -> None:
        """Add one call."""
        self.finished += 1
        self.given_up += call.ending is Ending.GIVEN_UP
        self.failed += call.ending is Ending.FAILED
        self.refused += call.refusals

    def __str__(self) -> str:
        failed = f", {self.failed:,} failed" if self.failed else ""
        return (
            f"{self.finished:,} of {self.calls:,} calls, {self.refused:,} times refused with 429,"
            f" {self.given_up:,} given up{failed}"
        )


class Shown(Protocol):
    """Something that shows a tally each time it has changed."""

    def update(self, tally: Tally) -> None:
        """Show `tally`."""
        ...


@contextmanager
def shown(console: Console, title: str, calls: int) -> Iterator[Shown]:
    """Show a run of `calls` on `console` while the block runs."""
    if not console.is_terminal:
        yield _Lines(console, title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[tally]}"))
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, title, calls)


class _Bar:
    def __init__(self, progress: Progress, title: str, calls: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=calls, tally="")

    def update(self, tally: Tally) -> None:
        self._progress.update(self._task, completed=tally.finished, tally=str(tally))


class _Lines:
    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._part = 0

    def update(self, tally: Tally) -> None:
        part = tally.finished * _LINES // tally.calls
        if part > self._part:
            self._part = part
            self._console.print(f"{self._title}: {tally}", soft_wrap=True)
