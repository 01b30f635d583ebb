"""Deadlines of many calls, and the one timer that they share."""

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from limiter_service.simulation.virtual_time import run
from limiter_service.store.deadlines import LONGER, Deadlines, Overdue, within


class Timers:
    """The timers of a loop, counted; they run as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set = 0
        loop = asyncio.get_running_loop()
        real = loop.call_at

        def call_at(*arguments: Any, **more: Any) -> asyncio.TimerHandle:
            self.set += 1
            return real(*arguments, **more)

        monkeypatch.setattr(loop, "call_at", call_at)


def later(seconds: float) -> float:
    """A moment of the loop's time."""
    return asyncio.get_running_loop().time() + seconds


async def test_whoever_has_no_answer_by_its_deadline_is_overdue():
    """In the order in which they are due; those that were answered keep their answer."""
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    order: list[int] = []
    answers = [loop.create_future() for _ in range(5)]
    first = later(0.02)
    for n, answer in enumerate(answers):
        answer.add_done_callback(lambda _, n=n: order.append(n))
        deadlines.add(answer, first + n / 1e6)  # so near that nothing holds the loop up in between
    answers[2].set_result("here")
    found = await asyncio.gather(*answers, return_exceptions=True)
    assert [isinstance(each, Overdue) for each in found] == [True, True, False, True, True]
    assert [n for n in order if n != 2] == [0, 1, 3, 4]


async def test_a_repeat_is_due_before_those_that_began_after_its_first_attempt():
    """It has the deadline of that: it does not wait behind them."""
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    far, near = loop.create_future(), loop.create_future()
    deadlines.add(far, later(600))
    deadlines.add(near, later(0.01))
    with pytest.raises(Overdue):
        await near
    assert not far.done()
    far.set_result(None)


async def test_many_calls_need_one_timer(monkeypatch: pytest.MonkeyPatch):
    """Those that were answered are forgotten with the next call, however far their deadline is."""
    timers, deadlines = Timers(monkeypatch), Deadlines()
    loop = asyncio.get_running_loop()
    for _ in range(1000):
        answer = loop.create_future()
        deadlines.add(answer, later(600))
        answer.set_result(None)
    assert timers.set == 1
    assert len(deadlines) == 1


async def test_the_timer_goes_on_for_those_behind():
    """The first is answered, the second is not."""
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    deadlines.add(first, later(0.01))
    deadlines.add(second, later(0.03))
    first.set_result(None)
    with pytest.raises(Overdue):
        await second
    assert len(deadlines) == 0


class Held:
    """A loop that is held up by other work, for longer than a deadline lasts."""

    def __init__(self) -> None:
        self.mine, self._theirs = socket.socketpair()
        self.mine.setblocking(False)

    async def heard(self) -> asyncio.Future[bytes]:
        """What will be set to what the other side says, some steps after that is read."""
        loop = asyncio.get_running_loop()
        found = loop.create_future()
        reading = loop.create_task(loop.sock_recv(self.mine, 100))
        reading.add_done_callback(lambda task: found.done() or found.set_result(task.result()))
        await asyncio.sleep(0)
        return found

    def up(self, seconds: float = 0.4) -> None:
        """Hold the loop up; the other side answers meanwhile."""
        self._theirs.send(b"here")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass

    def close(self) -> None:
        """Both ends."""
        self.mine.close()
        self._theirs.close()


@pytest.fixture
def held() -> Iterator[Held]:
    """A loop that can be held up, and a socket that it does not read meanwhile."""
    found = Held()
    yield found
    found.close()


@pytest.mark.parametrize("repeat", [False, True])
async def test_an_answer_that_came_while_the_loop_was_held_up_is_no_timeout(
    held: Held, repeat: bool
):
    """It lies in the socket when the timer is found to be over; for a repeat likewise."""
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    answer, far = await held.heard(), loop.create_future()
    if repeat:
        deadlines.add(far, later(600))
    deadlines.add(answer, later(0.03))
    held.up()
    assert await answer == b"here"
    far.cancel()


async def test_one_that_does_not_come_is_overdue_all_the_same(held: Held):
    """After as much time as the loop was late, in the order of the deadlines."""
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    order: list[int] = []
    answers = [loop.create_future() for _ in range(3)]
    for n, answer in enumerate(answers):
        answer.add_done_callback(lambda _, n=n: order.append(n))
        deadlines.add(answer, later(0.01 * (n + 1)))
    held.up(0.1)
    found = await asyncio.gather(*answers, return_exceptions=True)
    assert all(isinstance(each, Overdue) for each in found)
    assert order == [0, 1, 2]
    assert len(deadlines) == 0


async def test_work_that_is_over_while_the_loop_is_held_up_is_in_time(held: Held):
    """An exchange has its deadline likewise."""
    answer = await held.heard()
    async with within(0.03):
        held.up()
        assert await answer == b"here"


async def test_work_that_takes_too_long_ends(held: Held):
    """Whether the loop is late or not."""
    loop = asyncio.get_running_loop()

    async def work() -> None:
        async with within(0.01):
            await loop.create_future()

    for late in (False, True):
        if late:
            loop.call_soon(held.up, 0.1)
        with pytest.raises(TimeoutError):
            await work()
    async with within(None):
        await asyncio.sleep(0)


SILENCE = 0.5
"""Seconds after which a store that says nothing is lost."""


def ends(*heard: float) -> float:
    """When an answer that is due at 0.5 s, and does not come, is overdue where the store is heard
    at these times.
    """

    async def work() -> float:
        deadlines, loop = Deadlines(SILENCE), asyncio.get_running_loop()
        answer = loop.create_future()
        deadlines.add(answer, 0.5)
        for at in heard:
            loop.call_at(at, deadlines.heard, at)
        with pytest.raises(Overdue):
            await answer
        assert len(deadlines) == 0
        return loop.time()

    found: float = run(work())
    return found


def test_a_store_that_is_silent_has_the_time_that_was_said():
    """From what it said last."""
    assert ends() == pytest.approx(0.5)
    assert ends(0.0, 0.1) == pytest.approx(0.6)


def test_a_call_whose_turn_has_not_come_waits_on_while_the_store_answers_others():
    """Many at once are no loss of the store; that it falls silent then is one."""
    often = [n / 10 for n in range(100)]
    assert ends(*often) == pytest.approx(0.5 + LONGER * SILENCE)
    assert ends(*often[:11]) == pytest.approx(1.0 + SILENCE)


def test_whoever_waits_on_is_answered_when_the_turn_comes():
    """And those that begin meanwhile have their own time."""

    async def work() -> None:
        deadlines, loop = Deadlines(SILENCE), asyncio.get_running_loop()
        first, second = loop.create_future(), loop.create_future()
        deadlines.add(first, 0.5)
        deadlines.add(second, 0.6)
        loop.call_at(0.4, deadlines.heard, 0.4)
        loop.call_at(0.7, first.set_result, "here")
        assert await first == "here"
        with pytest.raises(Overdue):
            await second
        assert loop.time() == pytest.approx(0.4 + SILENCE)
        assert len(deadlines) == 0

    run(work())
