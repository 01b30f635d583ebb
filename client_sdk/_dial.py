"""How a channel is opened, and what it means when it cannot be.

websockets is imported when it is needed: a program that never calls does not pay for it.
"""

import random
import ssl

import msgspec

from client_sdk._answers import refusal_of
from client_sdk._credentials import tls_of
from client_sdk._roster import NoChannel
from client_sdk.options import LimiterOptions

_BLOCKED_FOR = 60.0
_SERVER_ERROR = 500
_REFUSED_MESSAGE = {1002, 1003, 1007, 1008, 1009}

PING_INTERVAL, PING_TIMEOUT = 10.0, 10.0
CLOSE_TIMEOUT = 1.0
MOST_BYTES = 2**24


class Address(msgspec.Struct, frozen=True):
    """Where the channel is, and what the handshake carries."""

    uri: str
    headers: dict[str, str]
    tls: ssl.SSLContext | None = None


def address(url: str, api_key: str | None, options: LimiterOptions) -> Address:
    """The channel of the service at *url*."""
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    tls = tls_of(options) if url.startswith("https:") else None
    # Grants say briefly what is in limits (limiter_wire/brief), where the service knows how.
    return Address(f"ws{url.removeprefix('http')}/v1/channel?limits=brief", headers, tls)


def why(error: Exception, *, opened_before: bool) -> NoChannel:
    """What a failed handshake means: blocked where something understood it and will not do it,
    or swallows it and has never done otherwise.
    """
    from websockets.exceptions import InvalidMessage, InvalidStatus  # noqa: PLC0415  # lazy

    reason = f"no channel: {str(error) or type(error).__name__}"
    if isinstance(error, TimeoutError):
        return NoChannel(reason, blocked=not opened_before)
    if isinstance(error, OSError):
        return NoChannel(reason)
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
        return NoChannel(reason)
    if isinstance(error, InvalidStatus) and error.response.status_code >= _SERVER_ERROR:
        return NoChannel(reason)
    refusal = (
        refusal_of(bytes(error.response.body or b"")) if isinstance(error, InvalidStatus) else None
    )
    return NoChannel(reason, blocked=True, refusal=refusal)


def refused_message(code: int | None) -> bool:
    """Whether a connection ended because of what it was sent."""
    return code in _REFUSED_MESSAGE


def useless() -> NoChannel:
    """What it means when a connection ends before anything was heard on it."""
    return NoChannel("the channel was closed before it was of any use")


def pause(
    options: LimiterOptions, failures: int, spread: random.Random, failure: NoChannel | None
) -> float:
    """Seconds before the next attempt: doubled each time, with full jitter; long when blocked."""
    if failure is not None and failure.blocked:
        return spread.uniform(_BLOCKED_FOR / 2, _BLOCKED_FOR)
    return spread.uniform(0, min(options.max_backoff, options.backoff * 2**failures))
