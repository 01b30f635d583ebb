"""Replicas over one store that can be killed, and what they say while it is away."""

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from tests_support.calls import ask
from tests_support.servers import Server
from tests_support.service import http_client, in_process
from tests_support.waiting import until


class Fleet:
    """Replicas in this process, and the store that they share; it writes every change to disk."""

    def __init__(self, store: Server, replicas: list[httpx.AsyncClient]) -> None:
        self.store, self.replicas = store, replicas

    async def counted(self, number: int | None = None) -> None:
        """Return when every replica has a share, and knows how many others do."""
        wanted = float(number or len(self.replicas))
        for replica in self.replicas:

            async def knows(replica: httpx.AsyncClient = replica) -> bool:
                return await gauge(replica, "sluicegate_degraded_replicas") == wanted

            await until(knows, "the replicas do not count each other")

    async def looked(self) -> None:
        """Return when every replica has looked at the levels as they are now."""
        for replica in self.replicas:
            outages = engine_of(replica).outages
            for pool in outages.all():
                before = pool.looked_at

                async def looked(pool: Any = pool, before: float = before) -> bool:
                    return bool(pool.looked_at > before)

                await until(looked, "a replica does not look")

    async def lost(self) -> None:
        """Kill the store, and return when every replica has noticed."""
        self.store.kill()
        for replica in self.replicas:
            await self.is_lost(replica)

    async def lost_unseen(self, take: Callable[[], Awaitable[None]]) -> int:
        """Kill the store when every replica has looked, somebody has taken, and nobody has looked
        since; again, where one was faster. Returns how often they have taken.
        """
        for times in itertools.count(1):
            await self.looked()
            before = self._looks()
            await take()
            if self._looks() == before:
                await self.lost()
                if self._looks() == before:
                    return times
                await asyncio.to_thread(self.store.start)
                await self.back()
        raise AssertionError("unreachable")

    def _looks(self) -> list[float]:
        return [pool.looked_at for each in self.replicas for pool in engine_of(each).outages.all()]

    async def is_lost(self, replica: httpx.AsyncClient) -> None:
        """Return when a replica has noticed."""

        async def noticed() -> bool:
            return await gauge(replica, "sluicegate_degraded") == 1.0

        await until(noticed, "a replica does not notice that the store is lost")

    async def back(self) -> None:
        """Return when the store decides again at every replica, and all is charged."""
        for replica in self.replicas:

            async def whole(replica: httpx.AsyncClient = replica) -> bool:
                lost = await gauge(replica, "sluicegate_degraded")
                return lost == 0.0 and await gauge(replica, "sluicegate_degraded_uncharged") == 0.0

            await until(whole, "a replica does not come back")


def engine_of(replica: httpx.AsyncClient) -> Any:
    """The engine behind a client in this process."""
    return replica._transport.app._inner.state.engine  # type: ignore[attr-defined]  # of httpx.ASGITransport


async def gauge(replica: httpx.AsyncClient, name: str) -> float | None:
    """The first value of a metric."""
    text = (await replica.get("/metrics")).text
    found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


@contextlib.asynccontextmanager
async def fleet(
    store: Server, write_config: Callable[[str], Path], config: str, replicas: int, **settings: Any
) -> AsyncIterator[Fleet]:
    """*replicas* of them, each with a share."""
    path = write_config(config)
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(replicas):
            app = await stack.enter_async_context(in_process(store.url, path, **settings))
            clients.append(await stack.enter_async_context(http_client(app)))
        found = Fleet(store, clients)
        await found.counted()
        yield found


async def drain(replica: httpx.AsyncClient, tokens: int, most: int = 1000) -> list[dict[str, Any]]:
    """Acquire until refused; the grants."""
    grants: list[dict[str, Any]] = []
    for _ in range(most):
        answer = await replica.post("/v1/acquire", json={"resource": "p/m", "tokens": tokens})
        if answer.status_code != 200:
            return grants
        grants.append(answer.json())
    raise AssertionError("it grants without an end")


async def take(replica: httpx.AsyncClient, tokens: int, **fields: Any) -> dict[str, Any]:
    """One acquire that is granted."""
    return await ask(replica, "acquire", resource="p/m", tokens=tokens, **fields)
