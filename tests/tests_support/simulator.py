"""The simulated provider on a port of its own."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic

from limiter_service.provider_sim import SimOptions, create_sim_app, running


@contextlib.asynccontextmanager
async def simulator(
    options: SimOptions, clock: Callable[[], float] = monotonic
) -> AsyncIterator[str]:
    """A running simulator; its URL."""
    async with running(create_sim_app(options, clock)) as url:
        yield url


@contextlib.contextmanager
def simulator_thread(options: SimOptions) -> Iterator[str]:
    """A running simulator with a thread and a loop of its own: for callers that block."""
    loop = asyncio.new_event_loop()
    ready: queue.SimpleQueue[str] = queue.SimpleQueue()
    over = asyncio.Event()

    async def serve() -> None:
        async with simulator(options) as url:
            ready.put(url)
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        yield ready.get(timeout=20)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()
