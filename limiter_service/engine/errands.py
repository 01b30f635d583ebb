"""Work beside that of callers: so much of it at once, the rest in the order in which it came.

When a crowd leaves, each of it is one more call of the store. Begun all at once they would take as
much memory as the crowd itself, and come before whoever asks for something.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

MOST = 64
"""How much is under way at once."""


class Errands:
    """What is to be done, and what is under way."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._under_way: set[asyncio.Task[None]] = set()
        self._left: deque[Coroutine[Any, Any, None]] = deque()

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._under_way) + len(self._left)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* when its turn comes."""
        self._left.append(work)
        self._begin()

    async def over(self) -> None:
        """Return when there is nothing left to do."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def forget(self) -> None:
        """What has not begun never does."""
        while self._left:
            self._left.popleft().close()

    def _begin(self) -> None:
        while self._left and len(self._under_way) < self._most:
            task = asyncio.get_running_loop().create_task(self._left.popleft())
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()
