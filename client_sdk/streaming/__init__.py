"""The streaming core: bytes and times in, events and outcomes out. No I/O, no clock of its own.

What is named here is loaded when it is asked for: who only takes leases has no use for it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client_sdk.streaming.accumulator import StreamAccumulator
    from client_sdk.streaming.answer import Choice
    from client_sdk.streaming.chunks import StreamChunk, Thought, ToolCall, ToolCallDelta
    from client_sdk.streaming.dialects import dialect_names
    from client_sdk.streaming.eventstream import EventStreamDecoder
    from client_sdk.streaming.faults import ProviderFault, category_of
    from client_sdk.streaming.liveness import StreamTimeouts
    from client_sdk.streaming.ndjson import NDJSONDecoder
    from client_sdk.streaming.sse import Event, Heartbeat, SSEDecoder
    from client_sdk.streaming.statistics import (
        AggregatedStatistics,
        Spread,
        StatisticsCollector,
        StreamStatistics,
    )
    from client_sdk.streaming.terminal import StreamOutcome, reported
    from client_sdk.streaming.tools import ToolCallAssembler

__all__ = [
    "AggregatedStatistics",
    "Choice",
    "Event",
    "EventStreamDecoder",
    "Heartbeat",
    "NDJSONDecoder",
    "ProviderFault",
    "SSEDecoder",
    "Spread",
    "StatisticsCollector",
    "StreamAccumulator",
    "StreamChunk",
    "StreamOutcome",
    "StreamStatistics",
    "StreamTimeouts",
    "Thought",
    "ToolCall",
    "ToolCallAssembler",
    "ToolCallDelta",
    "category_of",
    "dialect_names",
    "reported",
]

_NAMES = {
    "accumulator": ("StreamAccumulator",),
    "answer": ("Choice",),
    "chunks": ("StreamChunk", "Thought", "ToolCall", "ToolCallDelta"),
    "dialects": ("dialect_names",),
    "eventstream": ("EventStreamDecoder",),
    "faults": ("ProviderFault", "category_of"),
    "liveness": ("StreamTimeouts",),
    "ndjson": ("NDJSONDecoder",),
    "sse": ("Event", "Heartbeat", "SSEDecoder"),
    "statistics": ("AggregatedStatistics", "Spread", "StatisticsCollector", "StreamStatistics"),
    "terminal": ("StreamOutcome", "reported"),
    "tools": ("ToolCallAssembler",),
}
_HOMES = {name: f"{__name__}.{home}" for home, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found
