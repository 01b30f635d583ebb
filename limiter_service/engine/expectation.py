"""Learned sizes of calls, shared by all replicas through the store.

What settles report is told to the store shortly after, several calls in one; the answer is
what all replicas know. Losing a report costs accuracy, never a limit.
"""

import asyncio
from collections.abc import Sequence

from limiter_service.engine import ids, sizes
from limiter_service.engine.sizes import Sizes, sizes_of
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Key, Keys
from limiter_wire import Calibration

_FRESH = 5.0
_PAUSE = 0.25
_MOST_PENDING = 100
_KEPT_MS = 7 * 86_400_000


class _Kind:
    """One kind of calls: what is known of it, and what the store has not been told."""

    __slots__ = ("asked", "asking", "heard", "key", "known", "name", "news", "suggested", "timer")

    def __init__(self, name: tuple[str, str, str], key: Key) -> None:
        self.name, self.key = name, key
        self.know(Sizes())
        self.asked, self.heard = -_FRESH * 2, False
        self.news: list[tuple[float, float, float]] = []
        self.asking: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def know(self, known: Sizes) -> None:
        """Take in sizes, and what every acquire is told of them."""
        self.known, self.suggested = known, known.suggested_max_tokens


class Expectations:
    """Sizes by model and route, at most some seconds old; the least used are forgotten first."""

    def __init__(self, commands: Commands, prefix: str, most: int = 10_000) -> None:
        self._commands, self._prefix, self._most = commands, prefix, most
        self._kinds: dict[tuple[str, str, str], _Kind] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def learn(
        self,
        pool: str,
        model: str,
        route: str | None,
        *,
        output: int | None = None,
        estimated: float | None = None,
        actual: int | None = None,
    ) -> None:
        """Take in one call: its output, and how its input was estimated."""
        compared = (estimated, float(actual)) if estimated and actual else (0.0, 0.0)
        if output is None and compared[0] == 0:
            return
        news = (-1.0 if output is None else float(output), *compared)
        self._note(self._kind(pool, model, ""), news)
        if route:
            self._note(self._kind(pool, model, route), news)

    def is_ready(self, pool: str, model: str, route: str | None) -> bool:
        """Whether something was heard of this kind of call, or cannot be."""
        return all(self._kind(pool, model, name).heard for name in {route or "", ""})

    async def ready(self, pool: str, model: str, route: str | None) -> None:
        """Return when something was heard of this kind of call, or cannot be."""
        kinds = [self._kind(pool, model, name) for name in {route or "", ""}]
        tasks = [self._ask(kind) for kind in kinds if not kind.heard]
        if tasks:
            await asyncio.gather(*map(asyncio.shield, tasks))

    def expected_output(self, pool: str, model: str, route: str | None) -> float | None:
        """Tokens of an answer to hold; None while too little was seen."""
        return sizes.expected_output(*self._known(pool, model, route))

    def suggested_max_tokens(
        self, pool: str, model: str, route: str | None, asked: int | None
    ) -> int | None:
        """A bound that one answer in a hundred exceeds; None while too little was seen."""
        of_route, of_model = self._kinds_of(pool, model, route)
        return sizes.bound(of_route.suggested, of_model.suggested, asked)

    def calibration(self, pool: str, model: str, route: str | None) -> Calibration | None:
        """How estimated inputs compare with real ones; None while nothing is known."""
        return sizes.calibration(*self._known(pool, model, route))

    async def aclose(self) -> None:
        """Tell the store what it has not heard."""
        for kind in [*self._kinds.values()]:
            if kind.news:
                self._ask(kind)
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    def _known(self, pool: str, model: str, route: str | None) -> tuple[Sizes, Sizes]:
        of_route, of_model = self._kinds_of(pool, model, route)
        return of_route.known, of_model.known

    def _kinds_of(self, pool: str, model: str, route: str | None) -> tuple[_Kind, _Kind]:
        """Calls of the route, and of the model; what is old is asked for, for the next call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        old = self._loop.time() - _FRESH
        of_model = self._kinds.get((pool, model, "")) or self._kind(pool, model, "")
        if of_model.asked < old:
            self._ask(of_model)
        if not route:
            return of_model, of_model
        of_route = self._kind(pool, model, route)
        if of_route.asked < old:
            self._ask(of_route)
        return of_route, of_model

    def _kind(self, pool: str, model: str, route: str) -> _Kind:
        name = pool, model, route
        kind = self._kinds.get(name)
        if kind is None:
            kind = _Kind(name, Keys(pool, self._prefix).sizes(model, route))
            if len(self._kinds) >= self._most:  # callers choose models and routes: bounded
                del self._kinds[next(iter(self._kinds))]
            self._kinds[name] = kind
        return kind

    def _note(self, kind: _Kind, news: tuple[float, float, float]) -> None:
        kind.news.append(news)
        if len(kind.news) >= _MOST_PENDING:
            self._ask(kind)
        elif kind.timer is None and kind.asking is None:
            kind.timer = asyncio.get_running_loop().call_later(_PAUSE, self._ask, kind)

    def _ask(self, kind: _Kind) -> asyncio.Task[None]:
        if kind.timer is not None:
            kind.timer.cancel()
            kind.timer = None
        if (known := self._kinds.pop(kind.name, None)) is not None:
            self._kinds[kind.name] = known  # whoever is asked for is among the last to be forgotten
        if kind.asking is None:
            kind.asking = asyncio.get_running_loop().create_task(self._exchange(kind))
            self._under_way.add(kind.asking)
            kind.asking.add_done_callback(self._under_way.discard)
        return kind.asking

    async def _exchange(self, kind: _Kind) -> None:
        kind.asked = asyncio.get_running_loop().time()
        try:
            while True:
                news, kind.news = kind.news, []
                kind.know(await self._told(kind.key, news))
                if len(kind.news) < _MOST_PENDING:
                    break
        except StoreError:
            pass  # what was known stays; it is asked again when it is old
        finally:
            kind.asking, kind.heard = None, True
            if kind.news and kind.timer is None:
                kind.timer = asyncio.get_running_loop().call_later(_PAUSE, self._ask, kind)

    async def _told(self, key: Key, news: Sequence[tuple[float, float, float]]) -> Sizes:
        reply = await self._commands.sizes(key, ids.new_nonce(), _KEPT_MS, news)
        return sizes_of(reply.numbers)
