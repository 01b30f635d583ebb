"""An event loop whose clock jumps to the next timer: hours in seconds, the same every time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

_OWN = 1  # what a loop waits for itself, to be woken by others: time that stands wakes nobody


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: time that nobody uses is skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("nothing is scheduled: somebody waits for what never comes")
        if timeout > 0:
            self.now += timeout
        return super().select(0) if len(self.get_map()) > _OWN else ()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs coroutines in virtual time, which begins at 0 seconds."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._virtual.now


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of *work* in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
