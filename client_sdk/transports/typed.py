"""Typed chunks of SDKs, read as the events that they were made from. Pure.

A chunk becomes JSON again, which costs a part of what its making did; in return every rule of
the dialects holds for it: usage, tool calls, finish reasons, errors.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from client_sdk.streaming.dialects import DIALECTS, Dialect
from client_sdk.streaming.dialects._dialect import Framing
from client_sdk.streaming.sse import Event, Heartbeat


class Frames:
    """Each piece of data is a whole event already."""

    broken: str | None = None
    stray = b""

    def __init__(self, max_event_bytes: int | None = None) -> None:
        """Nothing is kept, so nothing needs a bound."""

    def feed(self, data: bytes) -> list[Event | Heartbeat]:
        """One event."""
        return [Event("message", data)]

    def flush(self) -> list[Event | Heartbeat]:
        """Nothing is left."""
        return []


class KeyedFrames(Frames):
    """Bedrock's: the event's kind is the one key of its object."""

    def feed(self, data: bytes) -> list[Event | Heartbeat]:
        """One event, or nothing of what has no kind."""
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return [Event(kind, bytes(inner)) for kind, inner in found.items()]


@cache
def typed(name: str) -> type[Dialect]:
    """The dialect *name* for chunks instead of bytes."""
    framing: Framing = KeyedFrames if name == "bedrock" else Frames
    return type(name, (DIALECTS[name],), {"framing": framing, "first_bytes": b""})


def payload_of(chunk: object) -> bytes:
    """The JSON of a chunk; nothing of one that only repeats others, or cannot be written."""
    inner = _unwrapped(chunk)
    if isinstance(inner, bytes):
        return inner
    if isinstance(inner, str):
        return inner.encode()
    dump = getattr(inner, "model_dump_json", None)
    try:
        if callable(dump):
            text = dump(by_alias=True, exclude_none=True, warnings=False)
            return bytes(text, "utf-8")
        return msgspec.json.encode(inner, enc_hook=_plain)
    except Exception:  # noqa: BLE001  # whatever a foreign class raises, the caller has its chunk
        return b""


def _unwrapped(chunk: object) -> object:
    """The provider's chunk inside one that an SDK has put around it."""
    if getattr(chunk, "type", None) == "chunk":  # of openai's helper
        return getattr(chunk, "chunk", chunk)
    data = getattr(chunk, "data", None)
    return data if hasattr(data, "choices") else chunk  # of mistralai's


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None) or getattr(value, "to_dict", None)
    if callable(dump):
        return dump()
    return vars(value) if hasattr(value, "__dict__") else str(value)


_COHERE = frozenset({"message-start", "content-start", "content-delta", "tool-plan-delta"})
_ANTHROPIC = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "ping", "error"}
)
_BEDROCK = frozenset({"messageStart", "contentBlockStart", "contentBlockDelta", "metadata"})


def dialect_of(payload: bytes) -> str:
    """The dialect of a stream by its first chunk."""
    try:
        found: Any = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return "unknown"
    if not isinstance(found, Mapping):
        return "unknown"
    kind = found.get("type")
    if "choices" in found or ("error" in found and kind != "error"):
        return "openai-chat"
    if isinstance(kind, str) and kind.startswith("response."):
        return "openai-responses"
    if kind in _ANTHROPIC:
        return "anthropic"
    if kind in _COHERE:
        return "cohere"
    if "candidates" in found or "usageMetadata" in found or "promptFeedback" in found:
        return "gemini"
    if "done" in found:
        return "ollama"
    return "bedrock" if _BEDROCK & set(found) else "unknown"


def response_of(stream: object) -> object | None:
    """The HTTP response under an SDK's stream, None where it hides it."""
    response = getattr(stream, "response", None)
    return response if hasattr(response, "extensions") and hasattr(response, "request") else None
