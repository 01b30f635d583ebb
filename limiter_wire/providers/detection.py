"""Which provider this is: by host, else by headers, else by body, else by the model's name.

Hosts are compared whole or by their ending, never by what they contain: anybody can have
`openai` in a name.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from limiter_wire.providers.bodies import Body, decoded
from limiter_wire.providers.profiles import PROFILES


class Detected(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's name, and what it was known by; a model's name is weak evidence."""

    provider: str
    by: Literal["host", "headers", "body", "model"]


def detect(
    *,
    url: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: Body = None,
    model: str | None = None,
) -> Detected | None:
    """The provider that the evidence points to; None when nothing does."""
    if url is not None and (name := by_host(url)) is not None:
        return Detected(provider=name, by="host")
    if headers and (name := by_headers({str(key).lower(): "" for key in headers})) is not None:
        return Detected(provider=name, by="headers")
    if body is not None and (name := by_body(body)) is not None:
        return Detected(provider=name, by="body")
    if model is not None and (name := by_model(model)) is not None:
        return Detected(provider=name, by="model")
    return None


def by_host(url: str) -> str | None:
    """The provider that serves *url*, which may be a bare host."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return None
    for name, profile in PROFILES.items():
        if any(fnmatchcase(host, pattern) for pattern in profile.hosts):
            return name
    for name, profile in PROFILES.items():
        if port is not None and port in profile.ports:
            return name
    return None


# What passes through a gateway keeps the upstream's marks: gateways are asked first, and
# Azure before OpenAI, whose headers it forwards.
_HEADER_ORDER = ("openrouter", "azure", "cerebras", "fireworks")


def by_headers(headers: Mapping[str, str]) -> str | None:
    """The provider that sends such headers (names in lower case)."""
    names = [*_HEADER_ORDER, *(name for name in PROFILES if name not in _HEADER_ORDER)]
    for name in names:
        marks = PROFILES[name].header_marks
        if any(fnmatchcase(header, mark) for header in headers for mark in marks):
            return name
    return None


def by_body(body: Body) -> str | None:
    """The provider that says errors, or anything, in this shape."""
    payload = decoded(body)
    if isinstance(payload, str):
        return None
    error = payload.get("error")
    if "x_groq" in payload:
        return "groq"
    if isinstance(error, str) and len(payload) == 1:
        return "ollama"
    if payload.get("object") == "error":
        return "vllm" if isinstance(payload.get("code"), int) else "mistral"
    if not isinstance(error, Mapping):
        return None
    if payload.get("type") == "error":
        return "anthropic"
    if isinstance(metadata := error.get("metadata"), Mapping) and "provider_name" in metadata:
        return "openrouter"
    status = error.get("status")
    return "google" if isinstance(status, str) and status and status.isupper() else None


def by_model(model: str) -> str | None:
    """The provider whose models are named so; many others may serve it."""
    for name, profile in PROFILES.items():
        if any(fnmatchcase(model.lower(), pattern) for pattern in profile.models):
            return name
    return None
