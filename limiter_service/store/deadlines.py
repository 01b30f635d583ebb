"""Deadlines of calls that have the same patience: one timer for all of them.

A timer for each call is set and cancelled by nearly every one of them, which costs more than to
make the call. Those who have begun are due in their order, but for repeats, which are rare.

A deadline is about the store. Two things look as if the store had missed it, and are our own:

- The loop was held up by other work. It finds timers first and answers afterwards, which may have
  lain there for long. So whoever is found overdue late is given as much time again, up to CHANCE.
- So many calls wait to be sent that their turn does not come in time, while the store answers one
  after the other. So whoever is overdue waits on until the store has been silent for as long as a
  call may take, LONGER times that at most. What has been sent has a deadline of its own (`within`),
  counted from then.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Protocol

LATE = 0.02
"""Seconds by which a timer may be late without saying that the loop was held up."""

CHANCE = 0.25
"""Seconds at most in which answers are read that may have come while the loop was held up."""

LONGER = 3.0
"""How many times as long as a call may take another waits for its turn beyond its deadline."""


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
    """Answers that are awaited, in the order in which they are due, of a store that is not lost
    before it has been silent for *silence* seconds.
    """

    def __init__(self, silence: float = 0.5) -> None:
        self._silence = silence
        self._due: deque[tuple[float, Answer]] = deque()
        self._again: deque[tuple[float, float, Answer]] = deque()  # until when, its deadline
        self._timer: asyncio.TimerHandle | None = None
        self._heard = -math.inf

    def __len__(self) -> int:
        """How many are kept; some may be answered."""
        return len(self._due) + len(self._again)

    def heard(self, now: float) -> None:
        """The store has answered something."""
        self._heard = now

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
        for _ in range(len(again)):
            until, deadline, answer = again[0]
            if until > now and not answer.done():
                break
            again.popleft()
            self._judge(answer, deadline, now, spared=True)
        while due and (due[0][0] <= now or due[0][1].done()):
            deadline, answer = due.popleft()
            self._judge(answer, deadline, now)
        self._wait()

    def _repeat_is_due(self, answer: Answer, deadline: float) -> None:
        self._judge(answer, deadline, asyncio.get_running_loop().time())
        self._wait()

    def _judge(self, answer: Answer, deadline: float, now: float, *, spared: bool = False) -> None:
        """Fail who is overdue, unless that is no fault of the store."""
        if answer.done():
            return
        late = now - deadline
        silent_at = self._heard + self._silence
        if now < silent_at and late < LONGER * self._silence:
            until = min(now + CHANCE, silent_at)
        elif late > LATE and not spared:
            until = now + min(late, CHANCE)
        else:
            answer.set_exception(Overdue())
            return
        if self._again:  # in the order of their times
            until = max(until, self._again[-1][0])
        self._again.append((until, deadline, answer))

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
