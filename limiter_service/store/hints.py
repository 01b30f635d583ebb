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
        self._live: Subscription | None = None
        self._subscribed: set[str] = set()
        self._adding: set[asyncio.Task[None]] = set()

    def listen(self, channel: str, listener: Listener) -> None:
        """Call *listener* with every message on *channel*."""
        self._listeners[channel] = listener
        self._changed.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif self._live is not None:
            # The reader looks only now and then; what is published meanwhile would be missed.
            adding = self._add_now(self._live, channel)
            task = asyncio.get_running_loop().create_task(adding)
            self._adding.add(task)
            task.add_done_callback(self._adding.discard)

    def ignore(self, channel: str) -> None:
        """Listen to *channel* no more."""
        self._listeners.pop(channel, None)
        self._changed.set()

    async def _add(self, subscription: Subscription, channels: set[str]) -> None:
        new = channels - self._subscribed
        if new:
            self._subscribed |= new
            await subscription.subscribe(*new)

    async def _add_now(self, subscription: Subscription, channel: str) -> None:
        with contextlib.suppress(*STORE_ERRORS):  # the reader meets it too
            await self._add(subscription, {channel})

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
        if self._adding:
            await asyncio.wait(set(self._adding))

    async def _run(self) -> None:
        while not self._ended:
            try:
                async with self._client.subscription() as subscription:
                    await self._follow(subscription)
            except STORE_ERRORS as error:
                _log.debug("no hints from the store", problem=str(error))
                await asyncio.sleep(_PAUSE)

    async def _follow(self, subscription: Subscription) -> None:
        self._live, self._subscribed = subscription, set()
        try:
            await self._read(subscription)
        finally:
            self._live = None

    async def _read(self, subscription: Subscription) -> None:
        while not self._ended:
            self._changed.clear()
            wanted = set(self._listeners)
            await self._add(subscription, wanted)
            gone = self._subscribed - wanted
            if gone:
                self._subscribed -= gone
                await subscription.unsubscribe(*gone)
            if not wanted:
                await self._changed.wait()
                continue
            message = await subscription.message(0.5)
            if message is not None:
                channel, payload = message
                listener = self._listeners.get(channel)
                if listener is not None:
                    listener(payload)
