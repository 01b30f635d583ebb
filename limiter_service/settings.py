"""Everything the process can be told; the only reader of the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SLUICEGATE_"

_CALLERS = (f"{PREFIX}API_KEY", f"{PREFIX}URL")
"""What callers on this host are told, the SDK and the command line, and no service."""

_INJECTED = ("SLUICEGATE_PORT_", "SLUICEGATE_SERVICE_")
"""Kubernetes puts these in the environment of every pod beside a Service `sluicegate`."""


class Settings(BaseSettings):
    """One frozen value per process. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    config: Path | None = None
    """The pools file; without one a permissive example pool is served."""
    redis_url: str | None = None
    """The store; None starts the embedded Valkey in `state_dir`."""
    redis_ca: Path | None = None
    """Authorities that the certificates of a `rediss` store must come from; None: the system's."""
    redis_certificate: Path | None = None
    """Certificate of this client, where the store asks for one."""
    redis_key: Path | None = None
    """Key of that certificate."""
    redis_server_name: str | None = None
    """Name in the store's certificates; None: the host that is connected to."""
    sentinel_username: str | None = None
    """User at the sentinels, which is not that of the servers."""
    sentinel_password: SecretStr | None = None
    """Password at the sentinels."""
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    state_dir: Path | None = None
    """Where the embedded Valkey keeps its data; None: the user's state directory."""
    workers: int = Field(1, ge=1, le=64)
    allow_anonymous: bool = False
    """Serve callers without a key on other addresses than loopback."""
    admin_key: SecretStr | None = None
    """An admin key beside those of the store: `sg_<id>_<secret>`."""
    admin_key_file: Path | None = None
    """A file of such keys, one a line; read again when it changes."""
    key_grace: float = Field(3600.0, ge=0, le=604_800)
    """How long known API keys are served while the store does not answer."""
    metrics_open: bool = False
    """Show `/metrics` to callers without a key."""
    tls_certificate: Path | None = None
    """Speak TLS with this certificate chain (PEM)."""
    tls_key: Path | None = None
    """The private key of the certificate (PEM)."""
    tls_client_ca: Path | None = None
    """Serve only callers with a certificate of these authorities (PEM): mutual TLS."""
    trusted_proxies: str = ""
    """Addresses and networks, with commas between, whose `X-Forwarded-For` and
    `X-Forwarded-Proto` are believed."""
    allow_eviction: bool = False
    """Start over a store whose `maxmemory-policy` lets it forget what was spent."""
    key_prefix: str = Field("sg:", pattern=r"^[!-z|~]{0,32}$")
    connect_timeout: float = Field(0.25, gt=0, le=60)
    command_timeout: float = Field(0.5, gt=0, le=60)
    max_body: int = Field(65_536, ge=1024, le=16_777_216)
    """Largest request body in bytes."""
    max_head: int = Field(16_384, ge=1024, le=65_536)
    """Largest path and headers together, in bytes."""
    head_timeout: float = Field(4.0, gt=0, le=300)
    """Seconds until the head of a request must have arrived, from its first byte on, and that of
    a connection from its beginning."""
    body_timeout: float = Field(4.0, gt=0, le=300)
    max_connections: int = Field(10_000, ge=16, le=1_000_000)
    """Connections of one process; fewer where it may not open as many files."""
    max_connections_per_address: int = Field(2_500, ge=8, le=1_000_000)
    """Connections of one address (of one /64 network in IPv6); `trusted_proxies` may have more."""
    hold_limit: float = Field(25.0, ge=0, le=600)
    """How long an acquire over HTTP that waits is held before it is answered 202; shorter than the
    patience of every proxy on the way. A channel holds it for as long as it may wait."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    traces: Literal["off", "otlp"] = "off"
    """`otlp`: send spans where the usual `OTEL_...` variables say; needs `sluicegate[otel]`."""


def unknown(environment: Mapping[str, str]) -> list[str]:
    """Names with our prefix that no field reads: a typo, so starting is refused."""
    return sorted(
        name
        for name in environment
        if name.startswith(PREFIX)
        and not name.startswith(_INJECTED)
        and name not in _CALLERS
        and name.removeprefix(PREFIX).lower() not in Settings.model_fields
    )


def unknown_here() -> list[str]:
    """Unknown names in this process's environment."""
    return unknown(os.environ)


def api_key_here() -> str | None:
    """The API key with which commands of this process call a service."""
    return os.environ.get(f"{PREFIX}API_KEY")


def without_ours() -> dict[str, str]:
    """This process's environment without our settings, for a service with its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def export(settings: Settings) -> None:
    """Hand *settings* to worker processes, which read them from their environment."""
    for name, value in settings.model_dump(exclude={"admin_key"}).items():
        if value is not None:  # a key is never an option: workers inherit it
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            os.environ[f"{PREFIX}{name.upper()}"] = str(plain)


def state_home() -> Path:
    """The user's directory for state, as XDG has it."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
