"""Faults last for a while, and callers work between calls: the pauses of a trial."""

import asyncio
import time
from random import Random


def moment(luck: Random, longest: float = 0.8) -> None:
    """Let a fault last."""
    time.sleep(luck.uniform(0.1, longest))


async def work(luck: Random, longest: float) -> None:
    """Do something between two calls."""
    await asyncio.sleep(luck.uniform(0.0, longest))


async def late(luck: Random, longest: float) -> None:
    """Let what comes be late."""
    await asyncio.sleep(luck.uniform(0.0, longest))
