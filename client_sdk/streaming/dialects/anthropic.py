"""Anthropic messages: a start, numbered blocks, a delta with the stop reason, a stop.

The type in the data decides; gateways drop the `event:` lines. `message_start` may come
twice, a block may be stopped twice, or get deltas without a start.
"""

from typing import Any

import msgspec

from client_sdk.streaming.answer import Answer
from client_sdk.streaming.dialects._dialect import Dialect
from client_sdk.streaming.faults import fault_of, named_fault
from client_sdk.streaming.payload import loads, reader
from client_sdk.streaming.sse import Event
from client_sdk.streaming.terminal import StreamOutcome


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    iterations: "list[_Usage] | None" = None


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    usage: _Usage | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    index: int | None = None
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | str | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_read = reader(_Event)
_VERDICTS = {
    "max_tokens": StreamOutcome.LENGTH,
    "model_context_window_exceeded": StreamOutcome.LENGTH,
    "refusal": StreamOutcome.CONTENT_FILTER,
}


class Anthropic(Dialect):
    """`anthropic`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self._blocks: dict[int, str] = {}
        self._thinking: dict[int, list[str]] = {}

    def read(self, event: Event) -> None:
        """Take one event."""
        try:
            found = _decode(event.data)
        except (ValueError, RecursionError):
            odd = self.slowly(event, _read)
            if odd is None:
                return
            found = odd
        kind = found.type or event.event
        if kind == "content_block_delta":
            if found.delta is not None:
                self._delta(found.delta, found.index or 0, event.data)
        elif kind == "content_block_start":
            if found.content_block is not None:
                self._start(found.content_block, found.index or 0, event.data)
        elif kind == "content_block_stop":
            self._blocks.pop(found.index or 0, None)
        elif kind == "message_delta":
            self._message_delta(found)
        elif kind == "message_start":
            self._message_start(found.message)
        elif kind == "message_stop":
            self.answer.end()
        elif kind == "ping":
            self.answer.heartbeats += 1
        elif kind == "error" or found.error:
            payload = loads(event.data, self.answer)
            self.answer.fail(fault_of(payload) or named_fault(payload))
        else:
            self.answer.unknown(event.data)

    def _message_start(self, message: _Message | str | None) -> None:
        if not isinstance(message, _Message):
            return
        if self.answer.response_id is not None:
            self.answer.flags["repeated_start"] = None
        self.answer.response_id = self.answer.response_id or message.id or ""
        if message.usage is not None:
            # The output of a start is a first guess.
            self._usage(message.usage, final=False)

    def _start(self, block: _Block, index: int, raw: bytes) -> None:
        kind = block.type or "text"
        self._blocks[index] = kind
        if kind == "tool_use":
            tools = self.answer.choice(0).tools
            self.answer.tool(
                tools.open(index=index, id=block.id, name=block.name, initial=block.input)
            )
        elif kind == "text":
            if block.text:
                self.answer.text(block.text)
        elif kind == "thinking":
            if block.thinking:
                self._think(block.thinking, index)
            if block.signature:
                self._seal(block.signature, index)
        elif kind == "redacted_thinking" and block.data:
            self.answer.seal(redacted=block.data)
            self.answer.other(raw, progress=True)
        else:
            self.answer.other(raw, progress=True)

    def _delta(self, delta: _Delta, index: int, raw: bytes) -> None:
        # What the delta carries decides: its type may be missing or new.
        if delta.text is not None:
            if delta.text:
                self._implicit(index, "text")
                self.answer.text(delta.text)
        elif delta.partial_json is not None:
            if self._implicit(index, "tool_use") == "tool_use":
                tools = self.answer.choice(0).tools
                self.answer.tool(tools.add(index=index, arguments=delta.partial_json))
            else:
                # A tool that the provider runs itself.
                self.answer.other(raw, progress=True)
        elif delta.thinking is not None:
            if delta.thinking:
                self._implicit(index, "thinking")
                self._think(delta.thinking, index)
        elif delta.signature:
            self._seal(delta.signature, index)
            self.answer.other(raw)
        elif delta.type in {"signature_delta", "citations_delta", "compaction_delta"}:
            self.answer.other(raw)
        else:
            self.answer.unknown(raw)

    def _think(self, text: str, index: int) -> None:
        self._thinking.setdefault(index, []).append(text)
        self.answer.reasoning(text)

    def _seal(self, signature: str, index: int) -> None:
        text = "".join(self._thinking.pop(index, ()))
        self.answer.seal(text=text, signature=signature)

    def _implicit(self, index: int, kind: str) -> str:
        """The kind of the block; one that was never started is what its delta says."""
        known = self._blocks.get(index)
        if known is None:
            self.answer.flags["implicit_block"] = None
            known = self._blocks[index] = kind
        return known

    def _message_delta(self, found: _Event) -> None:
        if found.usage is not None:
            self._usage(found.usage, final=True)
        if found.delta is not None and found.delta.stop_reason:
            reason = found.delta.stop_reason
            self.answer.finish(reason, _VERDICTS.get(reason, StreamOutcome.COMPLETED))

    def _usage(self, usage: _Usage, *, final: bool) -> None:
        # Iterations are calls that the provider made for this one: they add up, while the
        # figures beside them are those of the last.
        parts = usage.iterations or [usage]
        read = sum(part.cache_read_input_tokens or 0 for part in parts)
        written = sum(part.cache_creation_input_tokens or 0 for part in parts)
        self.answer.usage(
            final=final,
            input_tokens=sum(part.input_tokens or 0 for part in parts) + read + written,
            output_tokens=sum(part.output_tokens or 0 for part in parts),
            cache_read_tokens=read,
            cache_write_tokens=written,
        )
