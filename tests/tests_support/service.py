"""The service as a test sees it: in process over ASGI, or as a real process."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import httpx
import redis

from limiter_service.app import create_app
from limiter_service.front import Front
from limiter_service.pools import Pools
from limiter_service.settings import Settings
from tests_support.servers import Server, any_binary
from tests_support.waiting import PATIENCE

PATIENT = 20.0
"""Seconds: a busy machine must not look like a lost store."""


@contextlib.asynccontextmanager
async def in_process(url: str, config: Path, **settings: object) -> AsyncIterator[Front]:
    """The application with its lifespan, over a running store."""
    given = {"config": config, "connect_timeout": PATIENT, "command_timeout": PATIENT} | settings
    app = create_app(Settings(**given), url, Pools(config))  # type: ignore[arg-type]  # keywords of one caller
    async with _lifespan(app):
        yield app


@contextlib.asynccontextmanager
async def _lifespan(app: Front) -> AsyncIterator[None]:
    inner = app._inner
    async with inner.router.lifespan_context(inner):  # type: ignore[attr-defined]  # a FastAPI application
        yield


def http_client(app: Front) -> httpx.AsyncClient:
    """Real HTTP semantics, without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


class ServiceProcess:
    """`sluicegate serve` as a separate process on a free port; a context manager."""

    def __init__(
        self, *arguments: str, env: dict[str, str] | None = None, stderr: IO[str] | None = None
    ) -> None:
        self._command = [
            sys.executable,
            "-m",
            "limiter_service",
            "serve",
            "--port",
            "0",
            *arguments,
        ]
        patient = {f"SLUICEGATE_{name}_TIMEOUT": str(PATIENT) for name in ("CONNECT", "COMMAND")}
        self._env = os.environ | patient | (env or {})
        self.url, self._stderr = "", stderr
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._drain, daemon=True)

    def __enter__(self) -> "ServiceProcess":
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=self._env,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("listening on "):
                self.url = line.split()[-1]
                break
        else:
            self.process.wait()
            self.process.stdout.close()
            raise AssertionError(f"the service did not start: {self.lines}")
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def _drain(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip() for line in self.process.stdout)


@contextlib.contextmanager
def service_with_store(home: Path, configuration: str) -> Iterator[tuple[Server, str]]:
    """A store of whatever kind is installed, and the URL of a service over it."""
    pools = home / "pools.yaml"
    pools.write_text(configuration)
    with (
        Server(any_binary(), home) as store,
        ServiceProcess("--config", str(pools), "--redis-url", store.url) as running,
    ):
        yield store, running.url


def emptied(service: tuple[Server, str]) -> str:
    """The URL of the service, whose store is empty now."""
    store, url = service
    with redis.Redis(unix_socket_path=str(store.socket)) as connection:
        connection.flushall()
    return url
