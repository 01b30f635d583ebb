"""The service in process, over a real store."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import redis
from tests_support.calls import EXACT
from tests_support.servers import Server
from tests_support.service import http_client, in_process

Serve = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def serve(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
) -> AsyncIterator[Serve]:
    """Start the service with a pools file; each call is another replica over one store."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(config: str = EXACT, **settings: object) -> httpx.AsyncClient:
            app = await stack.enter_async_context(
                in_process(server.url, write_config(config), **settings)
            )
            return await stack.enter_async_context(http_client(app))

        yield start


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """The service with the configuration of most tests."""
    return await serve()
