"""Wait on a condition, never for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE = 45.0
"""Seconds after which something hangs; a test is never about them."""


def wait_until(condition: Callable[[], object], message: str, timeout: float = PATIENCE) -> None:
    """Return as soon as *condition* holds; fail with *message* when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.01)  # the one pause of the tests


async def until(
    condition: Callable[[], Awaitable[object]], message: str, timeout: float = PATIENCE
) -> None:
    """`wait_until` for a condition that is awaited."""
    deadline = time.monotonic() + timeout
    while not await condition():
        assert time.monotonic() < deadline, message
        await asyncio.sleep(0.01)
