"""HTTP clients for providers: pooled, and without timeouts of their own where ours are."""

import ssl
from functools import cache

import httpx

from client_sdk.streaming import StreamTimeouts

_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30.0)
_POOL_WAIT = 60.0


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted: reading them takes longer than a request."""
    return httpx.create_ssl_context()


def async_client() -> httpx.AsyncClient:
    """A client for tasks."""
    return httpx.AsyncClient(limits=_LIMITS, verify=_trusted(), follow_redirects=True)


def sync_client() -> httpx.Client:
    """A client for threads."""
    return httpx.Client(limits=_LIMITS, verify=_trusted(), follow_redirects=True)


def limits(timeouts: StreamTimeouts, head: float | None) -> dict[str, dict[str, float | None]]:
    """The timeouts of one request, as an extension: of whatever family the client is.

    *head* bounds the wait for the answer's head where no task can be woken from it.
    """
    write = timeouts.idle_bytes
    times = {"connect": timeouts.connect, "read": head, "write": write, "pool": _POOL_WAIT}
    return {"timeout": times}
