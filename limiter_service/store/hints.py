"""Hints that other replicas publish. One may be lost: whoever listens asks again anyway."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from limiter_service.store.client import STORE_ERRORS, Client, Subscription

_log = structlog.get_logger()
_PAUSE = 0.5

Listener = Callable[[bytes], None]


class Hints:
    """Calls back what is published on the channels that somebody listens to.

    The connection is made with the first listener and closed with the last.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._listeners: dict[str, Listener] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._ended = False

    def listen(self, channel: str, listener: Listener) -> None:
        """Call *listener* with every message on *channel*."""
        self._listeners[channel] = listener
        self._changed.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def ignore(self, channel: str) -> None:
        """Listen to *channel* no more."""
        self._listeners.pop(channel, None)
        self._changed.set()

    async def aclose(self) -> None:
        """Stop listening, for good. Being told so and cancelled: a connection that is just being
        made may swallow the latter.
        """
        self._ended = True
        self._listeners.clear()
        self._changed.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while not self._ended:
            try:
                async with self._client.subscription() as subscription:
                    await self._follow(subscription)
            except STORE_ERRORS as error:
                _log.debug("no hints from the store", problem=str(error))
                await asyncio.sleep(_PAUSE)

    async def _follow(self, subscription: Subscription) -> None:
        subscribed: set[str] = set()
        while not self._ended:
            self._changed.clear()
            wanted = set(self._listeners)
            if wanted - subscribed:
                await subscription.subscribe(*(wanted - subscribed))
            if subscribed - wanted:
                await subscription.unsubscribe(*(subscribed - wanted))
            subscribed = wanted
            if not wanted:
                await self._changed.wait()
                continue
            message = await subscription.message(0.5)
            if message is not None:
                channel, payload = message
                listener = self._listeners.get(channel)
                if listener is not None:
                    listener(payload)
