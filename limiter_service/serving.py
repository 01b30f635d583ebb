"""Run the service: bind, start the store where none is given, serve until told to stop."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from limiter_service import connection, event_loop, websocket
from limiter_service import settings as environment
from limiter_service.app import create_app
from limiter_service.certificates import Certificates
from limiter_service.config_advice import advice
from limiter_service.door import is_loopback
from limiter_service.embedded import EmbeddedValkey
from limiter_service.engine import ids
from limiter_service.files import allow_files
from limiter_service.front import Front
from limiter_service.given_keys import GivenKeyError, GivenKeys
from limiter_service.guests import files_for
from limiter_service.pools import Pools
from limiter_service.settings import Settings
from limiter_service.store.access_commands import AccessCommands
from limiter_service.store.address import BadAddress, Topology, parse, redacted
from limiter_service.store.errors import StoreError, StoreUnavailable
from limiter_service.stores import connect
from limiter_service.telemetry import configure
from limiter_service.tracing import NoOpenTelemetry

_OBJECTS = 20_000
"""New objects that live, before the collector looks at them."""


class ServeError(Exception):
    """The service cannot start as asked; the message says what to change."""


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises ServeError, ConfigError or EmbeddedError."""
    check(settings)
    configure(settings.log_level, settings.log_format, traced=settings.traces != "off")
    pools = Pools(settings.config)
    if settings.config is None:
        _say("no --config: serving the built-in pool `example`, any model at 60 requests a minute")
    for line in advice(pools.config):
        _say(f"note: {line}")
    allow_files(files_for(settings.max_connections))
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
            if not settings.allow_eviction:
                asyncio.run(_refuse_eviction(settings, url))
        _refuse_nobody(settings, url)
        if settings.workers > 1:
            _serve_many(settings, listener)
        else:
            try:
                app = create_app(settings, url, pools)
            except NoOpenTelemetry as error:
                raise ServeError(str(error)) from error
            _spare_the_collector()
            _Server(_uvicorn(app, settings), listener, settings).run(sockets=[listener])


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
    _check_store(settings)
    try:
        GivenKeys(settings)
    except GivenKeyError as error:
        raise ServeError(str(error)) from error
    _check_tls(settings)


def _check_tls(settings: Settings) -> None:
    """Raise ServeError for files of TLS that do not belong together, or are none."""
    pair = (settings.tls_certificate, settings.tls_key)
    if all(path is None for path in (*pair, settings.tls_client_ca)):
        return
    if None in pair:
        raise ServeError("SLUICEGATE_TLS_CERTIFICATE and SLUICEGATE_TLS_KEY go together")
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings.tls_client_ca)
        context.load_cert_chain(*pair)  # type: ignore[arg-type]  # both are there
    except OSError as error:
        raise ServeError(f"TLS cannot be spoken with the files that are given: {error}") from error


def _refuse_nobody(settings: Settings, url: str) -> None:
    """Raise ServeError where nobody could call: others than this host need keys."""
    if is_loopback(settings.host) or settings.allow_anonymous or GivenKeys(settings).now():
        return
    try:
        if asyncio.run(_has_keys(settings, url)):
            return
    except StoreError as error:
        _say(f"note: the store does not answer yet, so nobody knows the API keys: {error}")
        return
    raise ServeError(
        f"--host {settings.host} needs API keys, and there are none: make one with "
        "`sluicegate keys create --role admin --redis-url ...`, or give one as "
        "SLUICEGATE_ADMIN_KEY_FILE; or add --allow-anonymous when the network is trusted"
    )


async def _has_keys(settings: Settings, url: str) -> bool:
    client = connect(settings, url)
    try:
        _, ring = await AccessCommands(client, settings.key_prefix).keyring(None, ids.new_nonce())
    finally:
        await client.aclose()
    return ring is not None and bool(ring.records)


def _check_store(settings: Settings) -> None:
    """Raise ServeError for a store that could not be connected, whatever it did."""
    address = None
    if settings.redis_url is not None:
        try:
            address = parse(settings.redis_url)
        except BadAddress as error:
            raise ServeError(f"--redis-url {redacted(settings.redis_url)}: {error}") from None
    secure = address is not None and address.secure
    for name in ("redis_ca", "redis_certificate", "redis_key", "redis_server_name"):
        value = getattr(settings, name)
        variable = f"{environment.PREFIX}{name.upper()}"
        if value is not None and not secure:
            raise ServeError(f"{variable} is for TLS, and --redis-url is no rediss:// URL")
        if isinstance(value, Path) and not value.is_file():
            raise ServeError(f"{variable}: there is no file {value}")
    if (settings.redis_certificate is None) != (settings.redis_key is None):
        raise ServeError(
            f"{environment.PREFIX}REDIS_CERTIFICATE and {environment.PREFIX}REDIS_KEY go together"
        )
    login = settings.sentinel_username is not None or settings.sentinel_password is not None
    if login and (address is None or address.topology is not Topology.SENTINEL):
        raise ServeError("the login of sentinels is for a redis+sentinel:// URL")


async def _refuse_eviction(settings: Settings, url: str) -> None:
    """Raise ServeError for a store that may forget what was spent. One that does not answer, or
    does not say, is served over: it may come later.
    """
    client = connect(settings, url)
    try:
        policy = (await client.info("memory")).get("maxmemory_policy", "noeviction")
    except StoreUnavailable:
        return
    finally:
        await client.aclose()
    if policy != "noeviction":
        raise ServeError(
            f"the store has maxmemory-policy {policy}: what it evicts is budget that is spent and "
            "forgotten; set noeviction there, or add --allow-eviction"
        )


def state_directory(settings: Settings) -> Path:
    """Where the embedded store of these settings lives."""
    return settings.state_dir or environment.state_home() / "sluicegate"


def worker_app() -> Front:
    """The application of one of several worker processes: settings from the environment."""
    settings = Settings()
    configure(settings.log_level, settings.log_format, traced=settings.traces != "off")
    assert settings.redis_url is not None
    app = create_app(settings, settings.redis_url, Pools(settings.config))
    _spare_the_collector()
    return app


def _spare_the_collector() -> None:
    """Take what is there by now out of the collector's sight, and let it look less often.

    Nearly all of a call is freed as soon as nobody holds it. The collector looks for the rest
    whenever there are some hundred objects more, which are the calls under way, and walks through
    all modules when it looks everywhere (docs/performance.md has what that took).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, 20, 20)


def _serve_many(settings: Settings, listener: socket.socket) -> None:
    environment.export(settings)
    app = "limiter_service.serving:worker_app"
    config = _uvicorn(app, settings, factory=True, workers=settings.workers)
    listener.listen(config.backlog)  # callers may come before the first worker accepts
    _announce(listener, settings)
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

    def __init__(self, config: uvicorn.Config, listener: socket.socket, settings: Settings) -> None:
        super().__init__(config)
        self._listener, self._settings = listener, settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _announce(self._listener, self._settings)

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
    files = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    tls = {
        "ssl_context_factory": Certificates(files) if settings.tls_certificate else None,
        "ssl_certfile": settings.tls_certificate,
        "ssl_keyfile": settings.tls_key,
        "ssl_ca_certs": settings.tls_client_ca,
        "ssl_cert_reqs": ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
    }
    return uvicorn.Config(
        app,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        lifespan="on",
        loop=f"{event_loop.__name__}:new",
        http=f"{connection.__name__}:Protocol",
        ws=f"{websocket.__name__}:Protocol",
        ws_per_message_deflate=False,  # small messages on a fast network
        ws_max_size=settings.max_body,
        **tls,  # type: ignore[arg-type]  # paths, or None
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


def _announce(listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.tls_certificate else "http"
    sys.stdout.write(f"listening on {scheme}://{shown}:{port}\n")
    sys.stdout.flush()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
