"""Running the simulator as a server that holds its connections, and so can cut them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from limiter_service.provider_sim.wire import TRANSPORT


class _HeldConnection(HttpToolsProtocol):
    """Tells the application which connection its request came on."""

    def connection_made(  # type: ignore[override]  # narrower than asyncio's: uvicorn's own
        self, transport: asyncio.Transport
    ) -> None:
        self.app_state = {**self.app_state, TRANSPORT: transport}
        super().connection_made(transport)


def sim_config(app: Starlette, *, host: str, port: int, log_level: str) -> uvicorn.Config:
    """How the simulator is served."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_HeldConnection,
        log_level=log_level,
        access_log=False,
        lifespan="off",
        # Calls in flight are simulated as well: nobody needs to wait for them.
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,  # as long as providers keep what is idle
    )


class _QuietServer(uvicorn.Server):
    """Leaves signals to whoever runs the loop, and stops at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def running(app: Starlette) -> AsyncIterator[str]:
    """Serve a simulator in this loop, on a port of its own, until the block is left; its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    host, port = listener.getsockname()
    server = _QuietServer(sim_config(app, host=host, port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        listener.listen(server.config.backlog)  # callers may come before it accepts
        yield f"http://{host}:{port}"
    finally:
        server.stop.set()
        await serving
        listener.close()
