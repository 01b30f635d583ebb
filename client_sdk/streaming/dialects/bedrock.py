"""Amazon Bedrock: binary frames of ConverseStream, or Anthropic events inside `chunk` frames.

`messageStop` and `metadata` (usage) come in either order; after both the stream is over.
Exceptions are frames, too.
"""

import base64
import binascii
from typing import Any, ClassVar

import msgspec

from client_sdk.streaming.answer import Answer
from client_sdk.streaming.dialects._dialect import Dialect, Framing
from client_sdk.streaming.dialects.anthropic import Anthropic
from client_sdk.streaming.eventstream import EXCEPTION, EventStreamDecoder
from client_sdk.streaming.faults import ProviderFault, named_fault
from client_sdk.streaming.payload import BadPayload, loads, reader
from client_sdk.streaming.sse import Event
from client_sdk.streaming.terminal import StreamOutcome


class _ToolUse(msgspec.Struct, rename="camel", gc=False):
    tool_use_id: str | None = None
    name: str | None = None
    input: Any = None


class _Reasoning(msgspec.Struct, gc=False):
    text: str | None = None


class _Delta(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Usage(msgspec.Struct, rename="camel", gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class _Frame(msgspec.Struct, rename="camel", gc=False):
    content_block_index: int | None = None
    start: _Delta | None = None
    delta: _Delta | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    bytes: str | None = None


_read = reader(_Frame)
_VERDICTS = {
    "max_tokens": StreamOutcome.LENGTH,
    "model_context_window_exceeded": StreamOutcome.LENGTH,
    "guardrail_intervened": StreamOutcome.CONTENT_FILTER,
    "content_filtered": StreamOutcome.CONTENT_FILTER,
}
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})


class Bedrock(Dialect):
    """`bedrock`."""

    framing: ClassVar[Framing] = EventStreamDecoder
    # As a length these would be half a gigabyte.
    first_bytes: ClassVar[bytes] = bytes(range(0x20, 0x7F))

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self._anthropic = Anthropic(answer)
        self._stopped = self._counted = False

    def read(self, event: Event) -> None:
        """Take one frame."""
        answer, kind = self.answer, event.event
        if kind.startswith(EXCEPTION):
            self._exception(kind.removeprefix(EXCEPTION), event.data)
            return
        found = _read(event.data or b"{}", answer)
        if found is None:
            return
        index = found.content_block_index or 0
        if kind == "contentBlockDelta":
            self._delta(found.delta or _Delta(), index, event.data)
        elif kind == "contentBlockStart":
            use = found.start.tool_use if found.start else None
            if use is not None:
                tools = answer.choice(0).tools
                answer.tool(tools.open(index=index, id=use.tool_use_id, name=use.name))
        elif kind == "messageStop":
            self._stop(found.stop_reason or "")
        elif kind == "metadata":
            self._counted = True
            self._usage(found.usage or _Usage())
        elif kind == "chunk":
            self._chunk(found.bytes or "")
        elif kind not in {"messageStart", "contentBlockStop"}:
            answer.unknown(event.data)
        if self._stopped and self._counted:
            answer.end()

    def finished(self) -> bool:
        """Whether a stop came, even one without a reason."""
        return self._stopped or super().finished()

    def _delta(self, delta: _Delta, index: int, raw: bytes) -> None:
        if delta.text is not None:
            if delta.text:
                self.answer.text(delta.text)
        elif delta.tool_use is not None:
            tools = self.answer.choice(0).tools
            self.answer.tool(tools.add(index=index, arguments=delta.tool_use.input))
        elif delta.reasoning_content is not None:
            if delta.reasoning_content.text:
                self.answer.reasoning(delta.reasoning_content.text)
        else:
            self.answer.unknown(raw)

    def _stop(self, reason: str) -> None:
        self._stopped = True
        if reason in _MALFORMED:
            self.answer.fail(ProviderFault(code=reason, status=502))
        elif reason:
            self.answer.finish(reason, _VERDICTS.get(reason, StreamOutcome.COMPLETED))

    def _usage(self, usage: _Usage) -> None:
        read = usage.cache_read_input_tokens or 0
        written = usage.cache_write_input_tokens or 0
        given = usage.input_tokens or 0
        if usage.total_tokens == given + read + written + (usage.output_tokens or 0):
            given += read + written
        self.answer.usage(
            input_tokens=given,
            output_tokens=usage.output_tokens,
            cache_read_tokens=read,
            cache_write_tokens=written,
        )

    def _chunk(self, encoded: str) -> None:
        try:
            inner = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise BadPayload("base64") from None
        self._anthropic.read(Event("message", inner))

    def _exception(self, kind: str, data: bytes) -> None:
        try:
            fault = named_fault(loads(data, self.answer))
        except BadPayload:
            fault = ProviderFault()
        known = named_fault({"code": kind})
        self.answer.fail(
            msgspec.structs.replace(fault, code=kind, status=fault.status or known.status)
        )
