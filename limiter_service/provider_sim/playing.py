"""Playing a script to a caller, in time, and noticing when the caller hangs up."""

import asyncio
from collections.abc import Callable
from enum import StrEnum

from limiter_service.provider_sim.faults.script import Drop, Pause, Script, Send
from limiter_service.provider_sim.wire import DroppedError, Message, Receive, Wire
from limiter_service.provider_sim.wire import Send as AsgiSend

# Timers of a loaded loop are late by milliseconds: tokens that are due within this many
# real seconds leave together, or a fast stream would fall behind its own rate.
_TIMER_GRAIN = 0.005


class Ending(StrEnum):
    """How an answer ended."""

    SENT = "sent"
    DROPPED = "dropped"
    HUNG_UP = "hung_up"


class Performance:
    """A script as the answer to a request (an ASGI application).

    `produced` is told how many tokens have left so far, `over` how it ended: once, always.
    """

    def __init__(
        self,
        script: Script,
        *,
        clock: Callable[[], float],
        speed: float,
        produced: Callable[[int], None],
        over: Callable[[Ending], None],
    ) -> None:
        self._script = script
        self._clock = clock
        self._speed = speed
        self._produced = produced
        self._over = over
        self._origin = clock()
        self._held: list[bytes] = []
        self._tokens = 0

    async def __call__(self, scope: Message, receive: Receive, send: AsgiSend) -> None:
        wire = Wire(scope, receive, send)
        playing = asyncio.create_task(self._play(wire))
        leaving = asyncio.create_task(wire.gone())
        ending = Ending.HUNG_UP
        try:
            await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                ending = playing.result()
        except DroppedError:
            ending = Ending.DROPPED
            raise
        finally:
            for task in (playing, leaving):
                task.cancel()
            await asyncio.gather(playing, leaving, return_exceptions=True)
            self._over(ending)

    async def _play(self, wire: Wire) -> Ending:
        for step in self._script.before:
            if isinstance(step, Drop):
                await wire.drop(reset=step.reset)
                return Ending.DROPPED
            if isinstance(step, Pause):
                await self._pause(step)
        await self._until(self._script.head.at)
        await wire.start(self._script.head)
        for step in self._script.steps:
            match step:
                case Send():
                    await self._send(wire, step)
                case Pause():
                    await self._flush(wire)
                    await self._pause(step)
                case Drop():
                    await self._flush(wire)
                    await wire.drop(reset=step.reset)
                    return Ending.DROPPED
        await self._flush(wire)
        await wire.end()
        return Ending.SENT

    async def _send(self, wire: Wire, step: Send) -> None:
        if self._early(step.at) > _TIMER_GRAIN:
            await self._flush(wire)
            await self._until(step.at)
        self._held.append(step.data)
        self._tokens += step.tokens

    async def _flush(self, wire: Wire) -> None:
        data = b"".join(self._held)
        self._held.clear()
        self._produced(self._tokens)
        if data:
            await wire.send(data)

    async def _pause(self, step: Pause) -> None:
        if step.seconds is None:
            await asyncio.Event().wait()  # until the caller has hung up
            return
        # What is due afterwards keeps its distance: a pause does not end in a burst.
        self._origin += step.seconds
        await asyncio.sleep(step.seconds)

    def _early(self, at: float) -> float:
        return self._origin + at / self._speed - self._clock()

    async def _until(self, at: float) -> None:
        early = self._early(at)
        if early > 0:
            await asyncio.sleep(early)
