"""OpenAI responses: typed events around numbered output items, ended by the whole response.

Calls are found by `output_index`: proxies are known to change the ids of items on the way.
"""

from typing import Any

import msgspec

from client_sdk.streaming.dialects._dialect import Dialect
from client_sdk.streaming.faults import ProviderFault, fault_of, named_fault
from client_sdk.streaming.payload import loads, reader
from client_sdk.streaming.sse import Event
from client_sdk.streaming.terminal import StreamOutcome


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    content: list[_Part] | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    status: str | None = None
    usage: _Usage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None
    output: list[_Item] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    delta: Any = None
    output_index: int | None = None
    sequence_number: int | None = None
    arguments: Any = None
    input: Any = None
    item: _Item | None = None
    response: _Response | None = None
    error: Any = None


_read = reader(_Event)
_CALLS = {"function_call": "function", "custom_tool_call": "custom"}
# Work of tools that the provider runs: no content to show, but progress.
_WORK = (
    "response.code_interpreter_call_code.",
    "response.mcp_call_arguments.",
    "response.shell_call_",
    "response.apply_patch_call_",
    "response.image_generation_call.partial_image",
)


class OpenAIResponses(Dialect):
    """`openai-responses`."""

    def read(self, event: Event) -> None:
        """Take one event."""
        if not event.data.startswith(b"{"):
            self.no_object(event)
            return
        answer = self.answer
        found = _read(event.data, answer)
        if found is None:
            return
        kind = found.type or event.event
        delta = found.delta
        if found.sequence_number is not None:
            answer.position = found.sequence_number
        if kind == "response.output_text.delta":
            if delta and isinstance(delta, str):
                answer.text(delta)
        elif kind in {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"}:
            if delta and isinstance(delta, str):
                answer.reasoning(delta)
        elif kind in {
            "response.function_call_arguments.delta",
            "response.custom_tool_call_input.delta",
        }:
            tools = answer.choice(0).tools
            answer.tool(tools.add(index=found.output_index, arguments=delta))
        elif kind in {
            "response.function_call_arguments.done",
            "response.custom_tool_call_input.done",
        }:
            self._whole(found.output_index, found.arguments or found.input)
        elif kind == "response.output_item.added":
            self._added(found, event.data)
        elif kind == "response.output_item.done":
            self._done(found, event.data)
        elif kind == "response.refusal.delta":
            if delta and isinstance(delta, str):
                answer.refusal(delta)
        elif kind in {"response.completed", "response.incomplete", "response.failed"}:
            self._end(kind, found.response or _Response(), event)
        elif kind == "error" or found.error:
            payload = loads(event.data, answer)
            answer.fail(fault_of(payload) or named_fault(payload))
        elif kind in {"ping", "keepalive"}:
            answer.heartbeats += 1
        else:
            self._rest(kind, found, event.data)

    def _added(self, found: _Event, raw: bytes) -> None:
        item = found.item or _Item()
        kind = _CALLS.get(item.type or "")
        if kind is None:
            if item.type not in {"message", "reasoning"}:
                self.answer.other(raw)
            return
        tools = self.answer.choice(0).tools
        self.answer.tool(
            tools.open(
                index=found.output_index,
                id=item.call_id or item.id,
                name=item.name,
                initial=item.arguments or item.input,
                type="custom" if kind == "custom" else "function",
            )
        )

    def _done(self, found: _Event, raw: bytes) -> None:
        item = found.item or _Item()
        if item.type not in _CALLS:
            if item.type not in {"message", "reasoning"}:
                self.answer.other(raw)
            return
        if not self._known(found.output_index):
            self._added(found, raw)
        self._whole(found.output_index, item.arguments or item.input)

    def _known(self, index: int | None) -> bool:
        return index is not None and self.answer.choice(0).tools.has(index)

    def _whole(self, index: int | None, arguments: object) -> None:
        tools = self.answer.choice(0).tools
        delta = tools.replace(index=index, arguments=arguments) if index is not None else None
        if delta is not None:
            self.answer.tool(delta)

    def _end(self, kind: str, response: _Response, event: Event) -> None:
        answer = self.answer
        if response.usage is not None:
            self._usage(response.usage)
        if kind == "response.failed" or response.error:
            payload = loads(event.data, answer)
            inner = payload.get("response") if isinstance(payload, dict) else None
            answer.fail(fault_of(inner) or ProviderFault(code="server_error"))
            return
        self._undivided(response.output or [])
        reason = response.incomplete_details.reason if response.incomplete_details else None
        if kind == "response.incomplete" or reason:
            verdict = (
                StreamOutcome.CONTENT_FILTER if reason == "content_filter" else StreamOutcome.LENGTH
            )
            answer.finish(reason or "incomplete", verdict)
        else:
            answer.finish(response.status or "completed", StreamOutcome.COMPLETED)
        answer.end()

    def _undivided(self, output: list[_Item]) -> None:
        """Take what only the final response has: some servers send no deltas."""
        main = self.answer.choice(0)
        silent, no_calls = not self.answer.answer_events, not main.tools
        for index, item in enumerate(output):
            if item.type == "message" and silent:
                for part in item.content or []:
                    if part.text:
                        self.answer.text(part.text)
                    if part.refusal:
                        self.answer.refusal(part.refusal)
            elif item.type in _CALLS and no_calls:
                self._added(_Event(item=item, output_index=index), b"")
                self._whole(index, item.arguments or item.input)

    def _rest(self, kind: str, found: _Event, raw: bytes) -> None:
        if found.response is not None and found.response.id and not self.answer.response_id:
            self.answer.response_id = found.response.id
        if kind.startswith("response.audio.") and found.delta:
            self.answer.audio(raw)
        elif kind.startswith(_WORK):
            self.answer.other(raw, progress=True)
        elif not kind.startswith("response."):
            self.answer.unknown(raw)
        elif not kind.endswith((".created", ".in_progress", ".queued", ".added", ".done")):
            self.answer.other(raw)

    def _usage(self, usage: _Usage) -> None:
        given, said = usage.input_tokens_details, usage.output_tokens_details
        self.answer.usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=given.cached_tokens if given else None,
            cache_write_tokens=given.cache_write_tokens if given else None,
            reasoning_tokens=said.reasoning_tokens if said else None,
        )
