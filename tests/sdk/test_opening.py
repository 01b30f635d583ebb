"""A caller who is cancelled while its connection is being opened leaves nothing in the pool."""

import asyncio
from typing import Any

import httpx
import pytest
from tests_support.provider import ProviderThread

from client_sdk import LLMClient

ASK = [{"role": "user", "content": "How high is the water?"}]


class Interrupting:
    """A network whose connections are open just when their caller is cancelled."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.caller: asyncio.Task[Any] | None = None

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, and cancel the caller in that moment."""
        stream = await self._inner.connect_tcp(*args, **kwargs)
        if self.caller is not None:
            self.caller.cancel()
        return stream


async def test_a_connection_that_was_just_opened_is_not_lost(simulator: ProviderThread):
    """The pool has no connection that counts as used and that nobody uses."""
    transport = httpx.AsyncHTTPTransport()
    pool = transport._pool
    network = pool._network_backend = Interrupting(pool._network_backend)  # type: ignore[assignment]  # as far as it is used
    given = {"base_url": f"{simulator.url}/v1", "api_key": "k"}
    async with (
        httpx.AsyncClient(transport=transport) as http,
        LLMClient("gpt-4o", http_client=http, **given) as llm,
    ):
        asked = network.caller = asyncio.ensure_future(llm.get_response_with_tools(ASK))
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert all(each.is_idle() or each.is_closed() for each in pool.connections)
        network.caller = None
        assert (await llm.get_response_with_tools(ASK)).text
