"""Run the service: bind, start the store where none is given, serve until told to stop."""

import contextlib
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from limiter_service import connection, websocket
from limiter_service import settings as environment
from limiter_service.app import create_app
from limiter_service.config_advice import advice
from limiter_service.embedded import EmbeddedValkey
from limiter_service.front import Front
from limiter_service.pools import Pools
from limiter_service.settings import Settings
from limiter_service.store.client import redacted
from limiter_service.telemetry import configure


class ServeError(Exception):
    """The service cannot start as asked; the message says what to change."""


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises ServeError, ConfigError or EmbeddedError."""
    check(settings)
    configure(settings.log_level, settings.log_format)
    pools = Pools(settings.config)
    if settings.config is None:
        _say("no --config: serving the built-in pool `example`, any model at 60 requests a minute")
    for line in advice(pools.config):
        _say(f"note: {line}")
    listener = _bind(settings.host, settings.port)
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        if settings.redis_url is None:
            store = stack.enter_context(EmbeddedValkey(state_directory(settings)))
            _say(f"embedded Valkey in {store.directory}")
            url = store.url
        else:
            url = settings.redis_url
            _say(f"store {redacted(url)}")
        if settings.workers > 1:
            _serve_many(settings, listener)
        else:
            app = create_app(settings, url, pools)
            _Server(_uvicorn(app, settings), listener).run(sockets=[listener])


def check(settings: Settings) -> None:
    """Raise ServeError for combinations that cannot work or are not safe."""
    unknown = environment.unknown_here()
    if unknown:
        raise ServeError(
            f"unknown in the environment: {', '.join(unknown)}; "
            f"known: {', '.join(environment.PREFIX + n.upper() for n in Settings.model_fields)}"
        )
    if settings.workers > 1 and settings.redis_url is None:
        raise ServeError(
            f"--workers {settings.workers} share one store: give it with --redis-url "
            "(the embedded Valkey belongs to a single process)"
        )
    if not _is_loopback(settings.host) and not settings.allow_anonymous:
        raise ServeError(
            f"--host {settings.host} would serve anybody who can reach it without a key; "
            "add --allow-anonymous when the network is trusted"
        )


def state_directory(settings: Settings) -> Path:
    """Where the embedded store of these settings lives."""
    return settings.state_dir or environment.state_home() / "sluicegate"


def worker_app() -> Front:
    """The application of one of several worker processes: settings from the environment."""
    settings = Settings()
    configure(settings.log_level, settings.log_format)
    assert settings.redis_url is not None
    return create_app(settings, settings.redis_url, Pools(settings.config))


def _serve_many(settings: Settings, listener: socket.socket) -> None:
    environment.export(settings)
    app = "limiter_service.serving:worker_app"
    config = _uvicorn(app, settings, factory=True, workers=settings.workers)
    listener.listen(config.backlog)  # callers may come before the first worker accepts
    _announce(listener)
    _Workers(config, sockets=[listener]).run()


class _Workers(Multiprocess):
    """Worker processes that live through SIGHUP.

    uvicorn would replace them, and one that starts with a bad file ends; each reads the file
    by itself instead, and keeps what it has when the file is bad.
    """

    def handle_hup(self) -> None:
        """Pass the signal on."""
        for process in self.processes:
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)


class _Server(uvicorn.Server):
    """Says where it listens as soon as it does: scripts wait for that line."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _announce(self._listener)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends the loop on a signal, and that is all.

        uvicorn raises the signal again afterwards: the process would die of it before the
        embedded store is stopped, and never with exit code 0.
        """
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def _uvicorn(app: Front | str, settings: Settings, **options: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        lifespan="on",
        http=f"{connection.__name__}:Protocol",
        ws=f"{websocket.__name__}:Protocol",
        ws_per_message_deflate=False,  # small messages on a fast network
        ws_max_size=settings.max_body,
        **options,  # type: ignore[arg-type]  # the keywords of one caller
    )


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServeError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    listener.set_inheritable(True)
    return listener


def _announce(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"listening on http://{shown}:{port}\n")
    sys.stdout.flush()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
