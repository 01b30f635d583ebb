"""Ollama: a JSON object per line; `done` is the last, with the counts. Calls come whole."""

from typing import Any, ClassVar

import msgspec

from client_sdk.streaming.dialects._dialect import Dialect, Framing
from client_sdk.streaming.faults import named_fault
from client_sdk.streaming.ndjson import NDJSONDecoder
from client_sdk.streaming.payload import loads, reader
from client_sdk.streaming.sse import Event
from client_sdk.streaming.terminal import StreamOutcome


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct, gc=False):
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


_read = reader(_Line)


class Ollama(Dialect):
    """`ollama`: /api/chat and /api/generate."""

    framing: ClassVar[Framing] = NDJSONDecoder
    first_bytes: ClassVar[bytes] = b"[<"
    bare_frames: ClassVar[bool] = True

    def read(self, event: Event) -> None:
        """Take one line."""
        if not event.data.startswith(b"{"):
            self.no_object(event)
            return
        answer = self.answer
        line = _read(event.data, answer)
        if line is None:
            return
        if line.error:
            answer.fail(named_fault(loads(event.data, answer)))
            return
        message = line.message or _Message(content=line.response, thinking=line.thinking)
        if message.thinking:
            answer.reasoning(message.thinking)
        if message.content:
            answer.text(message.content)
        for call in message.tool_calls or ():
            function = call.function or _Function()
            tools = answer.choice(0).tools
            answer.tool(
                tools.add_whole(id=call.id, name=function.name, arguments=function.arguments)
            )
        if line.done:
            answer.usage(input_tokens=line.prompt_eval_count, output_tokens=line.eval_count)
            if line.done_reason:
                long = line.done_reason == "length"
                verdict = StreamOutcome.LENGTH if long else StreamOutcome.COMPLETED
                answer.finish(line.done_reason, verdict)
            answer.end()
