"""Deadlines of many calls, and the one timer that they share."""

import asyncio
from typing import Any

import pytest

from limiter_service.store.deadlines import Deadlines, Overdue


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
    for n, answer in enumerate(answers):
        answer.add_done_callback(lambda _, n=n: order.append(n))
        deadlines.add(answer, later(0.01 * n))
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
