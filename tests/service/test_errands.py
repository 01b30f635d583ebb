"""Work beside that of callers: so much at once, in its order."""

import asyncio

from limiter_service.engine.errands import Errands


class Work:
    """Counts what has begun, and ends when it may."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.may_end = asyncio.Event()

    async def errand(self, n: int) -> None:
        """One errand; every third fails."""
        self.begun.append(n)
        await self.may_end.wait()
        if n % 3 == 0:
            raise asyncio.CancelledError


async def test_so_many_are_under_way_at_once():
    """The rest waits, and begins in the order in which it came, whatever becomes of others."""
    errands, work = Errands(most=4), Work()
    for n in range(10):
        errands.run(work.errand(n))
    await asyncio.sleep(0)
    assert work.begun == [0, 1, 2, 3]
    assert len(errands) == 10
    work.may_end.set()
    await errands.over()
    assert work.begun == list(range(10))
    assert len(errands) == 0


async def test_what_is_forgotten_never_begins():
    """What is under way ends."""
    errands, work = Errands(most=1), Work()
    for n in range(1, 3):
        errands.run(work.errand(n))
    await asyncio.sleep(0)
    errands.forget()
    work.may_end.set()
    await errands.over()
    assert work.begun == [1]
