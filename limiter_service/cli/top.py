"""`sluicegate top`: every limit as a bar, live."""

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from limiter_service.cli.asking import Output, Unanswered, show_json
from limiter_service.cli.ending import REFUSED, fail
from limiter_service.cli.options import HERE, Key, Shown, Url
from limiter_service.cli.overview import drawn, look

_WIDE_ENOUGH = 160
_LEAVE = (b"q", b"Q", b"\x1b", b"")


def top(
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between looks.")] = 1.0,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Watch limits, breakers and queues; q or Ctrl-C ends it.

    Where the output is no terminal, and with --output json, it shows one look and ends.

    Exit codes: 0 done, 1 the service refused or cannot be reached at the first look, 2 wrong
    options.

    Example: sluicegate top --interval 2
    """
    console = Console()
    try:
        view = look(url, api_key)
    except Unanswered as error:
        fail(str(error), REFUSED)
    if output is Output.JSON:
        show_json(msgspec.to_builtins(view))
        return
    if not console.is_terminal:
        console.width = _WIDE_ENOUGH
        console.print(drawn(view, console.width, bars=True))
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        _keys(),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        trouble = ""
        while True:
            live.update(_page(drawn(view, console.width, bars=True), trouble), refresh=True)
            if _asked_to_leave(interval):
                return
            try:
                view, trouble = look(url, api_key), ""
            except Unanswered as error:  # shown beside the last look: it may come back
                trouble = str(error)


def _page(body: RenderableType, trouble: str) -> RenderableType:
    clock = time.strftime("%H:%M:%S")
    head = Text(f"{clock}  q: quit")
    return Group(head, Text(trouble, "red"), body) if trouble else Group(head, body)


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys come at once and are not shown; where there is no keyboard, none come."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415  # absent on Windows
    import tty  # noqa: PLC0415  # likewise

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _asked_to_leave(within: float) -> bool:
    """Whether somebody presses q within so many seconds."""
    until = time.monotonic() + within
    while (left := until - time.monotonic()) > 0:
        if not sys.stdin.isatty():
            time.sleep(left)
            return False
        ready, _, _ = select.select([sys.stdin], [], [], left)
        if ready and os.read(sys.stdin.fileno(), 1) in _LEAVE:
            return True
    return False
