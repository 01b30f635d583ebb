"""One replica obeys: drain, log level, reload. What operators order is in engine/fleet.py."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from importlib.metadata import version
from typing import Any

import structlog

from limiter_service import telemetry
from limiter_service.config import ConfigError
from limiter_service.engine.admission import Engine
from limiter_service.engine.fleet import BEAT, DRAIN, LOG_LEVEL, RELOAD, Fleet, Orders
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import refuse
from limiter_service.pools import Pools, Reload
from limiter_service.routes.channel import Channels
from limiter_service.store.errors import StoreError
from limiter_service.store.hints import Hints
from limiter_wire import ErrorCode, Reloaded, ReplicaView

_log = structlog.get_logger()
_PATHS_TOLD = 20

FILE, SIGNAL = "file", "signal"
"""Who acts when it is no caller of the API: a change of the pools file, SIGHUP."""


class Control:
    """What this replica has been told, and the loop that listens."""

    def __init__(
        self,
        fleet: Fleet,
        pools: Pools,
        engine: Engine,
        channels: Channels,
        hints: Hints,
        *,
        key_prefix: str,
        log_level: str,
    ) -> None:
        self.fleet, self.pools = fleet, pools
        self._engine, self._channels, self._hints = engine, channels, hints
        self._key_prefix, self._configured_level = key_prefix, log_level
        self._level, self._started = log_level, time.time_ns() / 1e9
        self._version = version("sluicegate")  # to ask for it costs a look at every package
        self._reloaded: float | None = None
        self._nudge = asyncio.Event()
        self._errands: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Obey within. The first look comes first: what is drained must not grant meanwhile."""
        await self._look()
        self._hints.listen(self.fleet.channel, lambda _message: self._nudge.set())
        stop = asyncio.Event()
        tasks = [
            asyncio.create_task(self._obey()),
            asyncio.create_task(self.pools.watch(self._file_changed, stop)),
        ]
        try:
            with _on_hangup(self._hung_up):
                yield
        finally:
            stop.set()
            tasks[0].cancel()
            self._hints.ignore(self.fleet.channel)
            await asyncio.wait(tasks)
            if self._errands:
                await asyncio.wait(self._errands)
            with contextlib.suppress(StoreError):
                await self.fleet.leave()

    async def reload(self, actor: str, reason: str) -> Reloaded:
        """Read the file here, then have every replica read its own. Raises Refusal, with
        everything that is wrong, when the file is refused: then nobody else is bothered.
        """
        found = await self._take(actor, reason, always=True)
        if not found.accepted:
            raise refuse(ErrorCode.INVALID, str(ConfigError(self.pools.source, found.problems)))
        await self.fleet.order_reload(actor, reason)
        return Reloaded(
            replica=self.fleet.name,
            before=found.before,
            version=found.version,
            changes=found.changes,
        )

    async def _take(self, actor: str, reason: str, *, always: bool = False) -> Reload:
        found = await self.pools.read_again()
        await self._adopt(found, actor, reason, always=always)
        return found

    async def _adopt(self, found: Reload, actor: str, reason: str, *, always: bool = False) -> None:
        """Decide by what was read from now on. Leases and waiters are state in the store, which
        a new policy leaves alone.
        """
        if found.accepted:
            self._engine.books.catch_up()  # tenants are told apart as the file named them
            catalogue = self.pools.catalogue
            self._engine.policies = Policies(
                self.pools.config, self._key_prefix, catalogue=catalogue
            )
            self._engine.outages.start()
        self._nudge.set()  # the card of this replica names the version
        if not (always or found.problems or found.version != found.before):
            return
        with contextlib.suppress(StoreError):
            await self.fleet.tell(*_told(found, actor, reason), **_fields(found))

    def _file_changed(self, found: Reload) -> None:
        self._errand(self._adopt(found, FILE, ""))

    def _hung_up(self) -> None:
        self._errand(self._errand_of_reload(SIGNAL, "SIGHUP", always=True))

    async def _errand_of_reload(self, actor: str, reason: str, *, always: bool = False) -> None:
        await self._take(actor, reason, always=always)

    async def _obey(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._nudge.wait()
            self._nudge.clear()
            await self._look()

    async def _look(self) -> None:
        try:
            if self._follow(await self.fleet.alive(self._card())):
                await self.fleet.alive(self._card())
        except StoreError as error:
            _log.debug("no orders from the store", problem=str(error))

    def _follow(self, orders: Orders) -> bool:
        """Whether anything is another than before."""
        before = self._engine.draining, self._level
        self._drain(orders)
        self._speak(orders)
        self._read(orders)
        return before != (self._engine.draining, self._level)

    def _drain(self, orders: Orders) -> None:
        order, was = orders.of(DRAIN), self._engine.draining
        if order is None:
            self._engine.draining = None
            if was is not None:
                self._engine.passes.take_up()
                _log.warning("drained no more")
            return
        why = f": {order.reason}" if order.reason else ""
        self._engine.draining = f"drained by {order.actor}{why}; settles are taken"
        if was is None:
            self._engine.passes.hand_over()
            self._errand(self._channels.aclose())
            _log.warning("drained", actor=order.actor, reason=order.reason)

    def _speak(self, orders: Orders) -> None:
        order = orders.of(LOG_LEVEL)
        level = order.value if order else self._configured_level
        if level != self._level:
            telemetry.set_level(level)
            self._level = level
            _log.warning("log level", level=level, actor=order.actor if order else None)

    def _read(self, orders: Orders) -> None:
        """Reload when somebody has ordered it since the last look; who starts has just read."""
        order = orders.of(RELOAD)
        since = order.since if order else 0.0
        if self._reloaded is not None and since > self._reloaded:
            assert order is not None
            if order.value != self.fleet.name:  # who was asked has done so before it told
                self._errand(self._errand_of_reload(order.actor, order.reason))
        self._reloaded = max(since, self._reloaded or 0.0)

    def _card(self) -> ReplicaView:
        return ReplicaView(
            name=self.fleet.name,
            version=self._version,
            started=self._started,
            config=self.pools.version,
            log_level=self._level,
            draining=self._engine.draining is not None,
            config_problem=self.pools.problem,
        )

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


def _told(found: Reload, actor: str, reason: str) -> tuple[str, str, str]:
    return "config_reload" if found.accepted else "config_refused", actor, reason


def _fields(found: Reload) -> dict[str, str]:
    """What an event says of a reload: versions and paths, or every problem."""
    if not found.accepted:
        problems = "; ".join(map(str, found.problems))
        return {"count": str(len(found.problems)), "detail": problems}
    paths = [change.path for change in found.changes]
    more = f" and {len(paths) - _PATHS_TOLD} more" if len(paths) > _PATHS_TOLD else ""
    detail = ", ".join(paths[:_PATHS_TOLD]) + more
    fields = {"from": found.before, "to": found.version, "count": str(len(paths))}
    return fields | ({"detail": detail} if detail else {})


@contextlib.contextmanager
def _on_hangup(call: Callable[[], None]) -> Iterator[None]:
    """Call when SIGHUP comes; where the platform or the thread has no signals, never."""
    loop = asyncio.get_running_loop()
    number = getattr(signal, "SIGHUP", None)
    try:
        if number is not None:
            loop.add_signal_handler(number, call)
    except (NotImplementedError, ValueError, RuntimeError):
        number = None
    try:
        yield
    finally:
        if number is not None:
            loop.remove_signal_handler(number)
