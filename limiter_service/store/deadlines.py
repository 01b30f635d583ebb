"""Deadlines of calls that have the same patience: one timer for all of them.

A timer for each call is set and cancelled by nearly every one of them, which costs more than to
make the call. Those who have begun are due in their order, but for repeats, which are rare.

A deadline is about the store, and only a loop that runs can tell whether the store has kept it. One
that was held up by other work finds timers first and answers afterwards, which may have lain there
for long. So whoever is found overdue late is given as much time again, up to CHANCE: what has come
is read by then.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Protocol

LATE = 0.02
"""Seconds by which a timer may be late without saying that the loop was held up."""

CHANCE = 0.25
"""Seconds at most in which answers are read that may have come while the loop was held up."""


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
        self._again: deque[tuple[float, Answer]] = deque()  # those that were found late
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many are kept; some may be answered."""
        return len(self._due) + len(self._again)

    def add(self, answer: Answer, deadline: float) -> None:
        """Let *answer* fail with Overdue at *deadline*, in the loop's time."""
        due = self._due
        while due and due[0][1].done():
            due.popleft()
        if due and due[-1][0] > deadline:
            asyncio.get_running_loop().call_at(deadline, self._repeat_is_due, answer, deadline)
            return
        due.append((deadline, answer))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._look)

    def _look(self) -> None:
        """Fail whoever is due; then wait for the next one."""
        self._timer = None
        again, due = self._again, self._due
        now = asyncio.get_running_loop().time()
        while again and (again[0][0] <= now or again[0][1].done()):
            _fail(again.popleft()[1])
        while due and (due[0][0] <= now or due[0][1].done()):
            deadline, answer = due.popleft()
            if now - deadline <= LATE:
                _fail(answer)
            elif not answer.done():
                self._spare(answer, deadline, now)
        self._wait()

    def _repeat_is_due(self, answer: Answer, deadline: float) -> None:
        now = asyncio.get_running_loop().time()
        if now - deadline <= LATE:
            _fail(answer)
        elif not answer.done():
            self._spare(answer, deadline, now)
            self._wait()

    def _spare(self, answer: Answer, deadline: float, now: float) -> None:
        until = now + min(now - deadline, CHANCE)
        if self._again:
            until = max(until, self._again[-1][0])
        self._again.append((until, answer))

    def _wait(self) -> None:
        """Look again when the next one is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [kept[0][0] for kept in (self._again, self._due) if kept]
        if times:
            self._timer = asyncio.get_running_loop().call_at(min(times), self._look)


@contextlib.asynccontextmanager
async def within(seconds: float | None) -> AsyncIterator[None]:
    """Work of one task that has a deadline of its own, in the same way. Raises TimeoutError."""
    if seconds is None:
        yield
        return
    async with asyncio.timeout(None) as limit:
        watch = _Watch(limit, seconds)
        try:
            yield
        finally:
            watch.timer.cancel()


class _Watch:
    """Ends a limit of time when it is over, or later."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit, self._loop = limit, asyncio.get_running_loop()
        self._deadline = self._loop.time() + seconds
        self.timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        late = self._loop.time() - self._deadline
        if late <= LATE:
            self._end()
        else:
            self.timer = self._loop.call_later(min(late, CHANCE), self._end)

    def _end(self) -> None:
        self._limit.reschedule(self._deadline)


def _fail(answer: Answer) -> None:
    if not answer.done():
        answer.set_exception(Overdue())
