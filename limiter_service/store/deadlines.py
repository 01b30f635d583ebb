"""Deadlines of calls that have the same patience: one timer for all of them.

A timer for each call is set and cancelled by nearly every one of them, which costs more than to
make the call. Those who have begun are due in their order, but for repeats, which are rare.
"""

import asyncio
from collections import deque
from typing import Any, Protocol


class Overdue(TimeoutError):
    """There was no answer by the deadline."""


class Answer(Protocol):
    """Where the answer to a call comes to: a future, or what stands in its place."""

    def done(self) -> bool:
        """Whether it has come, or nobody waits for it any more."""

    def set_result(self, result: Any, /) -> None:
        """It has come."""

    def set_exception(self, exception: Exception, /) -> None:
        """It will not come."""


class Deadlines:
    """Answers that are awaited, in the order in which they are due."""

    def __init__(self) -> None:
        self._due: deque[tuple[float, Answer]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many are kept; some may be answered."""
        return len(self._due)

    def add(self, answer: Answer, deadline: float) -> None:
        """Let *answer* fail with Overdue at *deadline*, in the loop's time."""
        due = self._due
        while due and due[0][1].done():
            due.popleft()
        if due and due[-1][0] > deadline:
            asyncio.get_running_loop().call_at(deadline, _fail, answer)
            return
        due.append((deadline, answer))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._look)

    def _look(self) -> None:
        """Fail whoever is due; then wait for the next one."""
        self._timer = None
        due, loop = self._due, asyncio.get_running_loop()
        now = loop.time()
        while due and (due[0][0] <= now or due[0][1].done()):
            _fail(due.popleft()[1])
        if due:
            self._timer = loop.call_at(due[0][0], self._look)


def _fail(answer: Answer) -> None:
    if not answer.done():
        answer.set_exception(Overdue())
