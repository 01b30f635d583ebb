"""Callers that take from one limit through an engine, and keep their own books."""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.hints import Hints
from limiter_wire import Acquire, ErrorCode, Granted
from tests_support.waiting import until

LIMIT = 1_000_000


def pools(*names: str, more: str = "") -> str:
    """A file with one model in each pool; its limit does not refill while a test runs."""
    limit = f"{{name: budget, meter: tokens, limit: {LIMIT}, per: 366d, burst: {LIMIT}}}"
    lines = (f"  {name}: {{models: {{m: {{limits: [{limit}]}}}}{more}}}\n" for name in names)
    return "pools:\n" + "".join(lines)


def engine_over(client: Client, text: str, commands: Commands | None = None) -> Engine:
    """A replica with a pools file."""
    ahead = itertools.count(1_700_000_000_000_000)
    return Engine(
        commands or Commands(client),
        Policies(parse(text, ".yaml"), "sg:"),
        lambda: next(ahead),
        "sg:",
        hints=Hints(client),
        observe=lambda _: None,
    )


class Takers:
    """Tasks that take one token after another, each asking for it until it is answered."""

    def __init__(self, engine: Engine, pool: str, count: int) -> None:
        self._engine, self._resource = engine, f"{pool}/m"
        self.granted = [0] * count
        self.lost = 0
        self.reasons: set[str] = set()
        self.grants: list[float] = []
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._run(i)) for i in range(count)]

    @property
    def total(self) -> int:
        """Tokens that all of them were granted."""
        return sum(self.granted)

    async def reach(self, count: int, timeout: float = 30.0) -> None:
        """Return when they have been granted so many more."""
        goal = self.total + count

        async def reached() -> bool:
            if any(task.done() for task in self._tasks):
                await asyncio.gather(*self._tasks)
            return self.total >= goal

        await until(reached, f"no {count} grants more; lost {self.lost}: {self.reasons}", timeout)

    async def lose(self, timeout: float = 30.0) -> None:
        """Return when one of them was refused by the loss of the store."""
        before = self.lost

        async def refused() -> bool:
            return self.lost > before

        await until(refused, "nobody misses the store", timeout)

    def gap(self) -> tuple[float, float]:
        """The longest time without a grant: loop times of the grants before and after it."""
        pairs = list(itertools.pairwise(self.grants))
        return max(pairs, key=lambda pair: pair[1] - pair[0])

    async def each(self, timeout: float = 30.0) -> None:
        """Return when every one of them has been granted something more."""
        before = list(self.granted)

        async def reached() -> bool:
            return all(now > then for now, then in zip(self.granted, before, strict=True))

        await until(reached, "a caller is stuck", timeout)

    async def end(self) -> int:
        """Let everybody finish; what they were granted."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        return self.total

    async def spent(self) -> int:
        """What the store says of it."""
        view = await self._engine.view(self._resource, "default")
        return round(LIMIT - view.limits[0].remaining)

    async def _run(self, nth: int) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            request = Acquire(resource=self._resource, tokens=1, request_id=uuid.uuid4().hex)
            while True:
                try:
                    answer = await self._engine.acquire(request)
                except Refusal as refusal:
                    if refusal.problem.code is not ErrorCode.STORE_UNAVAILABLE:
                        raise
                    self.lost += 1
                    self.reasons.add(refusal.problem.detail)
                    await asyncio.sleep(0.01)
                    continue
                assert isinstance(answer, Granted)
                break
            self.granted[nth] += 1
            self.grants.append(loop.time())


async def patiently(ask: Callable[[], Awaitable[int]]) -> int:
    """What *ask* answers once the store does."""
    found: list[int] = []

    async def answered() -> bool:
        try:
            found.append(await ask())
        except Refusal:
            return False
        return True

    await until(answered, "the store does not answer")
    return found[0]
