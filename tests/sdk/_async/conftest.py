"""A limiter at the service of the session."""

from collections.abc import AsyncIterator

import pytest

from client_sdk import Limiter


@pytest.fixture
async def limiter(url: str) -> AsyncIterator[Limiter]:
    """A limiter with default options."""
    async with Limiter(url) as connected:
        yield connected
