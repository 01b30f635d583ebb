"""Everything the process can be told; the only reader of the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field
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
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    state_dir: Path | None = None
    """Where the embedded Valkey keeps its data; None: the user's state directory."""
    workers: int = Field(1, ge=1, le=64)
    allow_anonymous: bool = False
    """Serve callers without a key on other addresses than loopback."""
    key_prefix: str = Field("sg:", pattern=r"^[!-z|~]{0,32}$")
    connect_timeout: float = Field(0.25, gt=0, le=60)
    command_timeout: float = Field(0.5, gt=0, le=60)
    max_body: int = Field(65_536, ge=1024, le=16_777_216)
    """Largest request body in bytes."""
    max_head: int = Field(16_384, ge=1024, le=65_536)
    """Largest path and headers together, in bytes."""
    body_timeout: float = Field(5.0, gt=0, le=300)
    hold_limit: float = Field(25.0, ge=0, le=600)
    """How long an acquire that waits is held before it is answered 202; shorter than the
    patience of every proxy on the way."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""


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
    for name, value in settings.model_dump(mode="json").items():
        if value is not None:
            os.environ[f"{PREFIX}{name.upper()}"] = str(value)


def state_home() -> Path:
    """The user's directory for state, as XDG has it."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
