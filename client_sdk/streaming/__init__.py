"""The streaming core: bytes and times in, events and outcomes out. No I/O, no clock of its own."""

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
