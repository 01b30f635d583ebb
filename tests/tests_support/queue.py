"""Callers that wait in a queue, and what is seen of it from outside."""

import asyncio
import contextlib
from typing import Any

import httpx

from tests_support.calls import ask
from tests_support.waiting import until

PATIENCE = 100.0
"""Seconds that a caller of a test would wait; the test is over long before."""


class Callers:
    """Acquires in tasks of their own, each named by its request id.

    `answered` has the names in the order of their answers.
    """

    def __init__(self) -> None:
        self.answered: list[str] = []
        self._tasks: dict[str, asyncio.Task[httpx.Response]] = {}

    def ask(self, client: httpx.AsyncClient, name: str, **fields: object) -> None:
        """Send an acquire that may wait."""
        self._tasks[name] = asyncio.create_task(self._post(client, name, fields))

    async def stand(self, client: httpx.AsyncClient, name: str, **fields: object) -> None:
        """The same; returns when the request stands in the queue of pool `p`."""
        before = await depth(client)
        self.ask(client, name, **fields)
        await until_depth(client, before + 1)

    async def answer(self, name: str) -> httpx.Response:
        """What a caller was answered."""
        return await asyncio.wait_for(asyncio.shield(self._tasks[name]), 45)

    async def granted(self, name: str) -> dict[str, Any]:
        """The grant of a caller."""
        response = await self.answer(name)
        assert response.status_code == 200, response.text
        grant: dict[str, Any] = response.json()
        return grant

    async def hang_up(self, *names: str) -> None:
        """Break callers off in the middle of their requests; without names, all."""
        for name in names or list(self._tasks):
            task = self._tasks.pop(name)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
                await task

    async def _post(
        self, client: httpx.AsyncClient, name: str, fields: dict[str, object]
    ) -> httpx.Response:
        body = {"resource": "p/m", "tokens": 1, "max_wait": PATIENCE, "request_id": name}
        response = await client.post("/v1/acquire", json=body | fields)
        self.answered.append(name)
        return response


async def queue(client: httpx.AsyncClient, pool: str = "p") -> dict[str, Any]:
    """The queue of a pool as an operator sees it."""
    response = await client.get(f"/v1/queue/{pool}")
    assert response.status_code == 200, response.text
    view: dict[str, Any] = response.json()
    return view


async def depth(client: httpx.AsyncClient) -> int:
    """How many wait."""
    count: int = (await queue(client))["depth"]
    return count


async def until_depth(client: httpx.AsyncClient, wanted: int, timeout: float = 15.0) -> None:
    """Return when *wanted* callers wait."""

    async def reached() -> bool:
        return await depth(client) == wanted

    await until(reached, f"the queue does not come to {wanted} waiters", timeout)


async def poll(client: httpx.AsyncClient, name: str, **fields: object) -> dict[str, Any]:
    """Ask for a place that nobody holds: the answer is a 202."""
    body = {"resource": "p/m", "tokens": 1, "max_wait": PATIENCE, "hold": 0, "request_id": name}
    response = await client.post("/v1/acquire", json=body | fields)
    assert response.status_code == 202, response.text
    waiting: dict[str, Any] = response.json()
    return waiting


async def give_back(client: httpx.AsyncClient, lease: str, used: int = 0) -> None:
    """Settle a lease that used so many tokens."""
    await ask(client, "settle", lease=lease, usage={"input_tokens": used})
