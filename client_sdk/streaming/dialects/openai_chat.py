"""OpenAI chat completions, and the many servers that speak them more or less.

choices[].delta carries text, reasoning and pieces of tool calls; a finish reason ends a
choice, usage comes last or all the time, and `[DONE]` ends the stream at most servers.
"""

from contextlib import suppress
from typing import Any, ClassVar

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
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    reasoning_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _ToolDelta(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolDelta] | None = None
    function_call: _Function | None = None
    audio: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Groq(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    error: Any = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    x_groq: _Groq | None = None


class _Head(msgspec.Struct, gc=False):
    """What is looked at once, or when there are no choices: not worth decoding each time."""

    id: Any = None
    object: Any = None
    message: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_read = reader(_Chunk)
_decode_head = msgspec.json.Decoder(_Head).decode
_read_head = reader(_Head)
_LENGTH, _FILTER = StreamOutcome.LENGTH, StreamOutcome.CONTENT_FILTER


class OpenAIChat(Dialect):
    """`openai-chat`."""

    verdicts: ClassVar[dict[str, StreamOutcome]] = {
        "length": _LENGTH,
        "max_tokens": _LENGTH,
        "model_length": _LENGTH,
        "content_filter": _FILTER,
    }
    failures: ClassVar[frozenset[str]] = frozenset(
        {"error", "abort", "timeout", "insufficient_system_resource"}
    )

    def read(self, event: Event) -> None:
        """Take one chunk."""
        answer = self.answer
        try:
            chunk = _decode(event.data)
        except (ValueError, RecursionError):
            found = self.slowly(event, _read)
            if found is None:
                return
            chunk = found
        if chunk.error or chunk.choices is None or event.event == "error":
            self._without_choices(chunk, event)
        else:
            for choice in chunk.choices:
                delta = choice.delta
                index = choice.index or 0
                if delta is not None:
                    self._delta(delta, index)
                elif choice.message is not None or choice.text:
                    self._undivided(choice, index)
                if choice.finish_reason or choice.error or choice.usage is not None:
                    self._end_of(choice, index)
        if chunk.usage is not None:
            self._usage(chunk.usage)
        if chunk.x_groq is not None:
            self._groq(chunk.x_groq)
        if answer.response_id is None:
            with suppress(ValueError, RecursionError):  # a later frame has it, too
                found_id = _decode_head(event.data).id
                answer.response_id = found_id if isinstance(found_id, str) else ""

    def _delta(self, delta: _Delta, index: int) -> None:
        # The same text under several names is one text.
        reasoning = delta.reasoning_content or delta.reasoning or delta.thinking
        if reasoning:
            self.answer.reasoning(reasoning, index)
        content = delta.content
        if content:
            if isinstance(content, str):
                self.answer.text(content, index)
            else:
                self._parts(content, index)
        if delta.tool_calls:
            self._tools(delta.tool_calls, index)
        if delta.refusal:
            self.answer.refusal(delta.refusal, index)
        if delta.function_call is not None:
            call = delta.function_call
            self._tools([_ToolDelta(index=0, function=call)], index)
        if delta.audio:
            self.answer.audio(msgspec.json.encode(delta.audio), index)

    def _parts(self, parts: list[Any], index: int) -> None:
        """Content as a list of typed parts, which may nest."""
        for part in parts:
            if isinstance(part, str):
                self.answer.text(part, index)
            elif isinstance(part, dict):
                thinking = part.get("thinking")
                for item in thinking if isinstance(thinking, list) else [thinking]:
                    said = item.get("text") if isinstance(item, dict) else item
                    if said and isinstance(said, str):
                        self.answer.reasoning(said, index)
                text = part.get("text")
                if text and isinstance(text, str):
                    self.answer.text(text, index)

    def _tools(self, deltas: list[_ToolDelta], index: int) -> None:
        tools = self.answer.choice(index).tools
        for delta in deltas:
            function = delta.function or _Function()
            if not (delta.id or function.name or function.arguments or delta.index is not None):
                continue
            self.answer.tool(
                tools.add(
                    index=delta.index,
                    id=delta.id,
                    name=function.name,
                    arguments=function.arguments,
                ),
                index,
            )

    def _undivided(self, choice: _Choice, index: int) -> None:
        """A message instead of a delta counts where nothing came before; or old completions."""
        so_far = self.answer.choice(index)
        if choice.message is not None:
            if not (so_far.text or so_far.tools):
                self._delta(choice.message, index)
        elif choice.text:
            self.answer.text(choice.text, index)

    def _end_of(self, choice: _Choice, index: int) -> None:
        if choice.usage is not None:
            self._usage(choice.usage)
        reason = choice.finish_reason
        if choice.error:
            self.answer.fail(named_fault(choice.error))
        elif reason in self.failures:
            self.answer.fail(ProviderFault(code=reason))
        elif reason:
            verdict = self.verdicts.get(reason, StreamOutcome.COMPLETED)
            self.answer.finish(reason, verdict, index)

    def _without_choices(self, chunk: _Chunk, event: Event) -> None:
        head = _read_head(event.data, self.answer) or _Head()
        if event.event == "error":
            self.named_error(event)
        elif chunk.error or head.object == "error" or head.message is not None:
            self.answer.fail(fault_of(loads(event.data, self.answer)))
        elif head.object is None and head.id is None and chunk.usage is None:
            self.answer.unknown(event.data)

    def _groq(self, extra: _Groq) -> None:
        if extra.usage is not None:
            self._usage(extra.usage)
        if extra.error and self.answer.fault is None:
            self.answer.fail(named_fault(extra.error))

    def _usage(self, usage: _Usage) -> None:
        given, said = usage.prompt_tokens_details, usage.completion_tokens_details
        reasoning = (said.reasoning_tokens if said else None) or usage.reasoning_tokens or 0
        prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
        if reasoning and usage.total_tokens == prompt + completion + reasoning:
            # xAI leaves reasoning out of the completion.
            completion += reasoning
        self.answer.usage(
            input_tokens=prompt,
            output_tokens=completion,
            reasoning_tokens=reasoning,
            cache_read_tokens=(given.cached_tokens if given else None)
            or usage.prompt_cache_hit_tokens,
            cache_write_tokens=given.cache_write_tokens if given else None,
        )
