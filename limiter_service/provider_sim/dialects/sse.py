"""Server-sent events."""

from limiter_service.provider_sim.dialects.base import Json, encode

MEDIA_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"


def event(payload: Json, name: str | None = None) -> bytes:
    """One event with a JSON payload, and its name where the dialect names events."""
    data = b"data: " + encode(payload) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data
