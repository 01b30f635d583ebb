"""Cohere chat, version 2: message-start, numbered content and tool calls, message-end."""

from typing import Any

import msgspec

from client_sdk.streaming.dialects._dialect import Dialect
from client_sdk.streaming.faults import ProviderFault, fault_of, named_fault
from client_sdk.streaming.payload import loads, reader
from client_sdk.streaming.sse import Event
from client_sdk.streaming.terminal import StreamOutcome


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Content(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None


class _Message(msgspec.Struct, gc=False):
    # Lists stand in the frame that starts a message, single values in those that go on.
    content: _Content | list[Any] | None = None
    tool_calls: _ToolCall | list[Any] | None = None
    tool_plan: str | None = None


class _Tokens(msgspec.Struct, gc=False):
    input_tokens: int | float | None = None
    output_tokens: int | float | None = None


class _Usage(msgspec.Struct, gc=False):
    tokens: _Tokens | None = None
    billed_units: _Tokens | None = None
    cached_tokens: int | None = None


class _Delta(msgspec.Struct, gc=False):
    message: _Message | str | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    index: int | None = None
    delta: _Delta | None = None
    error: Any = None
    message: Any = None


_read = reader(_Event)
_VERDICTS = {
    "MAX_TOKENS": StreamOutcome.LENGTH,
    "ERROR_LIMIT": StreamOutcome.LENGTH,
    "ERROR_TOXIC": StreamOutcome.CONTENT_FILTER,
}
_FAILURES = {"ERROR": "server_error", "TIMEOUT": "timeout"}
_SILENT = frozenset({"content-end", "tool-call-end", "citation-end"})


class Cohere(Dialect):
    """`cohere`."""

    def read(self, event: Event) -> None:
        """Take one event."""
        if not event.data.startswith(b"{"):
            self.no_object(event)
            return
        found = _read(event.data, self.answer)
        if found is None:
            return
        kind = found.type or event.event
        delta = found.delta or _Delta()
        message = delta.message if isinstance(delta.message, _Message) else _Message()
        if kind in {"content-delta", "content-start"}:
            self._content(message.content)
        elif kind == "tool-plan-delta":
            if message.tool_plan:
                self.answer.reasoning(message.tool_plan)
        elif kind in {"tool-call-start", "tool-call-delta"}:
            self._call(message.tool_calls, found.index, opens=kind == "tool-call-start")
        elif kind == "message-start":
            self.answer.response_id = self.answer.response_id or found.id
        elif kind == "message-end":
            self._end(delta)
        elif found.error or kind == "error" or (found.type is None and found.message):
            payload = loads(event.data, self.answer)
            self.answer.fail(fault_of(payload) or named_fault(payload))
        elif kind == "ping":
            self.answer.heartbeats += 1
        elif kind == "citation-start":
            self.answer.other(event.data)
        elif kind not in _SILENT:
            self.answer.unknown(event.data)

    def _content(self, content: _Content | list[Any] | None) -> None:
        if not isinstance(content, _Content):
            return
        if content.thinking:
            self.answer.reasoning(content.thinking)
        if content.text:
            self.answer.text(content.text)

    def _call(self, call: _ToolCall | list[Any] | None, index: int | None, *, opens: bool) -> None:
        if not isinstance(call, _ToolCall):
            return
        tools = self.answer.choice(0).tools
        function = call.function or _Function()
        if opens:
            self.answer.tool(tools.open(index=index, id=call.id, name=function.name))
        if function.arguments or not opens:
            self.answer.tool(tools.add(index=index, arguments=function.arguments))

    def _end(self, delta: _Delta) -> None:
        usage = delta.usage or _Usage()
        tokens = usage.tokens or usage.billed_units or _Tokens()
        self.answer.usage(
            input_tokens=tokens.input_tokens,
            output_tokens=tokens.output_tokens,
            cache_read_tokens=usage.cached_tokens,
        )
        reason = delta.finish_reason or ""
        if delta.error:
            self.answer.fail(named_fault(delta.error))
        elif reason in _FAILURES:
            self.answer.fail(
                ProviderFault(
                    code=reason, type=_FAILURES[reason], status=504 if reason == "TIMEOUT" else 500
                )
            )
        elif reason:
            self.answer.finish(reason, _VERDICTS.get(reason, StreamOutcome.COMPLETED))
        self.answer.end()
