"""The simulated provider on a port of its own."""

import contextlib
from collections.abc import AsyncIterator, Callable
from time import monotonic

from limiter_service.provider_sim import SimOptions, create_sim_app, running


@contextlib.asynccontextmanager
async def simulator(
    options: SimOptions, clock: Callable[[], float] = monotonic
) -> AsyncIterator[str]:
    """A running simulator; its URL."""
    async with running(create_sim_app(options, clock)) as url:
        yield url
