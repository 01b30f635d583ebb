"""The service in a thread, on a real port, that counts who waits on its channels."""

import asyncio
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn

from limiter_service import serving
from limiter_service.app import create_app
from limiter_service.engine.admission import Engine
from limiter_service.engine.begun import BegunAcquire, BegunSettle
from limiter_service.engine.queueing import Tell
from limiter_service.front import Front
from limiter_service.http import Receive, Scope, Send
from limiter_service.pools import Pools
from limiter_service.settings import Settings
from limiter_service.store.posted import Listener
from limiter_wire import Acquire, Settle
from tests_support.service import PATIENT
from tests_support.waiting import wait_until


class Patience:
    """The engine as the channel sees it: counts who waits, who was called off, what was asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settle = engine.settle
        self.waiting, self.called_off = 0, 0
        self.asked: list[str | None] = []
        self.settling = 0
        self._gate = asyncio.Event()
        self._gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def begin(self, request: Acquire, listener: Listener) -> BegunAcquire | None:
        """Begin an acquire."""
        self.loop = asyncio.get_running_loop()
        begun = self._engine.begin(request, listener)
        if begun is not None:
            self.asked.append(request.request_id)
        return begun

    def begin_settle(self, report: Settle, listener: Listener) -> BegunSettle | None:
        """Begin a settle, where settles may go on."""
        begun = self._engine.begin_settle(report, listener) if self._gate.is_set() else None
        self.settling += begun is not None
        return begun

    async def acquire(
        self,
        request: Acquire,
        hold: float | None = None,
        tell: Tell | None = None,
        begun: BegunAcquire | None = None,
    ) -> Any:
        """Acquire; count it while it may wait."""
        self.loop = asyncio.get_running_loop()
        if begun is None:
            self.asked.append(request.request_id)
        if not request.max_wait:
            return await self._engine.acquire(request, hold, tell, begun)
        self.waiting += 1
        try:
            return await self._engine.acquire(request, hold, tell, begun)
        except asyncio.CancelledError:
            self.called_off += 1
            raise
        finally:
            self.waiting -= 1

    async def settle(self, report: Settle, begun: BegunSettle | None = None) -> Any:
        """Settle, once settles may go on."""
        self.settling += begun is None
        await self._gate.wait()
        return await self._settle(report, begun)

    def hold_settles(self) -> None:
        """Let settles begin, and go no further. Before the first, or nobody sees it."""
        self._gate.clear()

    def let_settles(self) -> None:
        """Let them go on."""
        self.loop.call_soon_threadsafe(self._gate.set)


class Entrance:
    """The application, with a count of the requests that enter it."""

    def __init__(self, app: Front) -> None:
        self._app, self._inner = app, app._inner
        self.entered: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.entered.append(scope["path"])
        await self._app(scope, receive, send)


class ServiceThread:
    """A service over *store_url*; a context manager."""

    def __init__(self, store_url: str, config: Path, port: int = 0, **settings: Any) -> None:
        given = {"config": config, "connect_timeout": PATIENT, "command_timeout": PATIENT}
        self._settings = Settings(**given | settings)
        self.listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port: int = self.listener.getsockname()[1]
        app = create_app(self._settings, store_url, Pools(config))
        state = app._inner.state  # type: ignore[attr-defined]  # a FastAPI application
        self.channels = state.channels
        self.engine = state.channels._engine = Patience(state.engine)
        self.hatch, self.keyring, self.state = state.hatch, state.keyring, state
        self.entrance = Entrance(app)
        served: Any = self.entrance
        self._server = uvicorn.Server(serving._uvicorn(served, self._settings))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self.listener]}, daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def keep_alive(self, seconds: float) -> None:
        """Let connections be idle for so long. Before it starts."""
        self._server.config.timeout_keep_alive = seconds  # type: ignore[assignment]  # any number

    @property
    def channel(self) -> str:
        """Where its channel is."""
        return f"ws://127.0.0.1:{self.port}/v1/channel"

    def stop(self) -> None:
        """Stop as SIGTERM does, and return when it has."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the service does not stop"
        self.listener.close()

    def __enter__(self) -> "ServiceThread":
        self._thread.start()
        wait_until(lambda: self._server.started, "the service does not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
