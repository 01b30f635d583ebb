"""An answer in one body, read as a stream of one event: its usage, its end, or its error.

The bodies of all providers are read by one reader: their figures have names of their own.
"""

from typing import Any, ClassVar

import msgspec

from client_sdk.streaming.dialects import Dialect
from client_sdk.streaming.dialects._dialect import Framing
from client_sdk.streaming.faults import fault_of
from client_sdk.streaming.payload import BadPayload, loads, reader
from client_sdk.streaming.sse import Event, Heartbeat
from client_sdk.streaming.terminal import StreamOutcome

LARGEST = 4 << 20
"""Bytes of a body that are kept; of a longer one (embeddings, audio) only the end is."""

_TAIL = 64 << 10


class BodyDecoder:
    """All bytes are one event, which comes at their end."""

    broken: str | None = None
    stray = b""

    def __init__(self, max_event_bytes: int | None = None) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._cut = False
        self._most = max_event_bytes or LARGEST

    def feed(self, data: bytes) -> list[Event | Heartbeat]:
        """Take the next bytes."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._most:
            self._cut = True
            self._parts = [b"".join(self._parts)[-_TAIL:]]
            self._size = len(self._parts[0])
        return []

    def flush(self) -> list[Event | Heartbeat]:
        """The body, or its end (event `tail`)."""
        if not self._size:
            return []
        kind = "tail" if self._cut else "body"
        # Marked as cut: whether it is shows when it is read.
        return [Event(kind, b"".join(self._parts), terminated=False)]


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Counts(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    """OpenAI's two forms, Anthropic's, Cohere's (`tokens`) and Bedrock's (in camel case)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    tokens: _Counts | None = None
    given: int | None = msgspec.field(name="inputTokens", default=None)
    said: int | None = msgspec.field(name="outputTokens", default=None)
    total: int | None = msgspec.field(name="totalTokens", default=None)
    read: int | None = msgspec.field(name="cacheReadInputTokens", default=None)
    written: int | None = msgspec.field(name="cacheWriteInputTokens", default=None)


class _Metadata(msgspec.Struct, gc=False, rename="camel"):
    """Gemini's."""

    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None


class _Meta(msgspec.Struct, gc=False):
    tokens: _Counts | None = None


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    reason: str | None = msgspec.field(name="finishReason", default=None)
    error: Any = None


class _Body(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    metadata: _Metadata | None = msgspec.field(name="usageMetadata", default=None)
    meta: _Meta | None = None
    choices: list[_Choice] | None = None
    candidates: list[_Choice] | None = None
    stop_reason: str | None = None
    finish_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None
    object: Any = None
    type: Any = None
    status: Any = None


_read = reader(_Body)
_read_usage = reader(_Usage)
_FILTERED = frozenset(
    {"content_filter", "refusal", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST"}
)


class Whole(Dialect):
    """One body. What is no JSON is none of ours to judge, unless it is a page."""

    framing: ClassVar[Framing] = BodyDecoder
    first_bytes: ClassVar[bytes] = b""
    has_terminator: ClassVar[bool] = False

    def read(self, event: Event) -> None:
        """Take the body."""
        data = event.data.strip()
        if event.event == "tail":
            self._tail(data)
        elif data[:1] == b"[":
            self._list(data)
        elif data[:1] == b"{":
            self._object(data)
        elif data[:1] == b"<":
            self.answer.break_off("the answer is a page")
        else:
            self._whole()

    def _object(self, data: bytes) -> None:
        body = _read(data, self.answer)
        if body is None:
            return
        choices = [*(body.choices or ()), *(body.candidates or ())]
        failed = body.error or "error" in (body.object, body.type) or body.status == "failed"
        if failed or any(choice.error for choice in choices):
            self._fail(loads(data, self.answer))
            return
        self._count(body)
        reasons = [choice.finish_reason or choice.reason for choice in choices]
        reasons += [body.stop_reason, body.finish_reason]
        self._whole(next((reason for reason in reasons if reason), None))

    def _fail(self, payload: dict[str, Any]) -> None:
        inner = next((c for c in payload.get("choices") or () if c.get("error")), payload)
        self.answer.fail(fault_of(inner))
        if self.answer.fault is None:
            self._whole()

    def _list(self, data: bytes) -> None:
        """Chunks of an answer in a list (Gemini without server-sent events), or embeddings."""
        found = loads(data, self.answer)
        objects = [item for item in found if isinstance(item, dict)]
        if objects and len(objects) == len(found):
            for item in objects:
                self._object(msgspec.json.encode(item))
        else:
            self._whole()

    def _tail(self, data: bytes) -> None:
        """The end of a long body: its usage stands there."""
        at = data.rfind(b'"usage"')
        start = data.find(b"{", at)
        end = data.find(b"}", start)
        if -1 < at < start < end:
            usage = data[start : end + 1]
            while usage.count(b"{") > usage.count(b"}") and end > 0:
                end = data.find(b"}", end + 1)
                usage = data[start : end + 1]
            try:
                self._of_usage(_read_usage(usage, self.answer) or _Usage())
            except BadPayload:
                self.answer.flags["cut_body"] = None
        self._whole()

    def _whole(self, reason: str | None = None) -> None:
        filtered = reason in _FILTERED
        verdict = StreamOutcome.CONTENT_FILTER if filtered else StreamOutcome.COMPLETED
        self.answer.finish(reason or "whole", verdict)

    def _count(self, body: _Body) -> None:
        if body.usage is not None:
            self._of_usage(body.usage)
        if body.metadata is not None:
            found = body.metadata
            thoughts = found.thoughts_token_count or 0
            self.answer.usage(
                input_tokens=(found.prompt_token_count or 0)
                + (found.tool_use_prompt_token_count or 0),
                output_tokens=(found.candidates_token_count or 0) + thoughts,
                reasoning_tokens=thoughts,
                cache_read_tokens=found.cached_content_token_count,
            )
        counts = body.meta.tokens if body.meta else None
        self.answer.usage(
            input_tokens=body.prompt_eval_count or (counts.input_tokens if counts else None),
            output_tokens=body.eval_count or (counts.output_tokens if counts else None),
        )

    def _of_usage(self, usage: _Usage) -> None:
        given = usage.prompt_tokens_details or usage.input_tokens_details or _Details()
        said = usage.completion_tokens_details or usage.output_tokens_details or _Details()
        counts = usage.tokens or _Counts()
        read = usage.cache_read_input_tokens or usage.read or 0
        written = usage.cache_creation_input_tokens or usage.written or 0
        inputs = usage.prompt_tokens or usage.input_tokens or usage.given or counts.input_tokens
        total = (usage.given or 0) + read + written + (usage.said or 0)
        if usage.given is None or usage.total == total:
            # Anthropic counts what was cached beside the rest, Bedrock where its sum says so.
            inputs = (inputs or 0) + read + written
        self.answer.usage(
            input_tokens=inputs,
            output_tokens=usage.completion_tokens
            or usage.output_tokens
            or usage.said
            or counts.output_tokens,
            cache_read_tokens=read or given.cached_tokens,
            cache_write_tokens=written or given.cache_write_tokens,
            reasoning_tokens=said.reasoning_tokens,
        )
