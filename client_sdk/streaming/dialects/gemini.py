"""Gemini: a whole response per event, no terminator; a finish reason and then the end.

A call comes whole, or as `partialArgs`: values for JSON paths, until one says that nothing
will continue it. Events of the interactions interface are told by their `event_type`.
"""

import re
from typing import Any, ClassVar

import msgspec

from client_sdk.streaming.answer import Answer
from client_sdk.streaming.dialects._dialect import Dialect
from client_sdk.streaming.faults import ProviderFault, fault_of, named_fault
from client_sdk.streaming.payload import loads, reader
from client_sdk.streaming.sse import Event
from client_sdk.streaming.terminal import StreamOutcome


class _PartialArg(msgspec.Struct, rename="camel", gc=False):
    json_path: str | None = None
    string_value: str | None = None
    number_value: float | int | None = None
    bool_value: bool | None = None
    null_value: Any = msgspec.UNSET
    will_continue: bool | None = None


class _Call(msgspec.Struct, rename="camel", gc=False):
    id: str | None = None
    name: str | None = None
    args: Any = None
    partial_args: list[_PartialArg] | None = None
    will_continue: bool | None = None


class _Part(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None
    inline_data: Any = None
    executable_code: Any = None
    code_execution_result: Any = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel", gc=False):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, rename="camel", gc=False):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None


class _Feedback(msgspec.Struct, rename="camel", gc=False):
    block_reason: str | None = None


class _Response(msgspec.Struct, rename="camel", gc=False):
    candidates: list[_Candidate] | None = None
    usage_metadata: _Usage | None = None
    prompt_feedback: _Feedback | None = None
    response_id: str | None = None
    error: Any = None
    event_type: str | None = msgspec.field(default=None, name="event_type")


_read = reader(_Response)
_LENGTH = "MAX_TOKENS"
_FILTERED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    }
)
_MALFORMED = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"})
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^']*)'\]|\["([^"]*)"\]""")
_DEEPEST = 64


class _Growing:
    """A call whose arguments come path by path."""

    def __init__(self, call: _Call) -> None:
        self.name, self.id = call.name, call.id
        # Lists are kept by position: a path may name any, and reserves nothing.
        self.root: dict[str | int, Any] = {}

    def take(self, arg: _PartialArg) -> None:
        """Put a value where its path says; text is put behind the text there."""
        path = [
            int(match[2]) if match[2] else match[1] or match[3] or match[4] or ""
            for match in _STEP.finditer(arg.json_path or "")
        ]
        if not path or len(path) > _DEEPEST:
            return
        place = self.root
        for step in path[:-1]:
            inner = place.get(step)
            if not isinstance(inner, dict):
                inner = place[step] = {}
            place = inner
        last = path[-1]
        if arg.string_value is not None:
            before = place.get(last)
            if isinstance(before, list):
                before.append(arg.string_value)
            else:
                place[last] = [arg.string_value]
        elif arg.number_value is not None:
            place[last] = arg.number_value
        elif arg.bool_value is not None:
            place[last] = arg.bool_value
        elif arg.null_value is not msgspec.UNSET:
            place[last] = None

    def arguments(self) -> object:
        """The value that the paths describe."""
        return _built(self.root)


def _built(value: Any) -> Any:  # any JSON
    if isinstance(value, list):
        return "".join(value)
    if not isinstance(value, dict):
        return value
    if value and all(isinstance(key, int) for key in value):
        return [_built(value[key]) for key in sorted(value)]
    return {str(key): _built(item) for key, item in value.items()}


class Gemini(Dialect):
    """`gemini`."""

    has_terminator: ClassVar[bool] = False

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self._growing: dict[int, _Growing] = {}
        self._steps: dict[int, str] = {}

    def read(self, event: Event) -> None:
        """Take one response."""
        answer = self.answer
        if not event.data.startswith(b"{"):
            payload = loads(event.data, answer) if event.data.startswith(b"[{") else None
            answer.fail(fault_of(payload))
            if not answer.over:
                self.no_object(event)
            return
        found = _read(event.data, answer)
        if found is None:
            return
        if found.error or event.event == "error":
            answer.fail(named_fault(loads(event.data, answer)))
            return
        if found.event_type is not None:
            self._interaction(found.event_type, event.data)
            return
        answer.response_id = answer.response_id or found.response_id
        for candidate in found.candidates or ():
            index = candidate.index or 0
            for part in (candidate.content.parts if candidate.content else None) or ():
                self._part(part, index)
            if candidate.finish_reason:
                self._finish(candidate.finish_reason, index)
        if found.usage_metadata is not None:
            self._usage(found.usage_metadata)
        if found.prompt_feedback is not None and found.prompt_feedback.block_reason:
            answer.finish(found.prompt_feedback.block_reason, StreamOutcome.CONTENT_FILTER)

    def close(self) -> None:
        """Take calls as whole whose last piece never came."""
        for index in list(self._growing):
            self._close_call(index)

    def _part(self, part: _Part, index: int) -> None:
        if part.text:
            if part.thought:
                self.answer.reasoning(part.text, index)
            else:
                self.answer.text(part.text, index)
        if part.function_call is not None:
            if part.thought_signature:
                if part.function_call.name:
                    self._close_call(index)
                self.answer.seal(signature=part.thought_signature, index=index)
            self._call(part.function_call, index)
        if part.inline_data:
            self.answer.audio(msgspec.json.encode(part.inline_data), index)
        for work in (part.executable_code, part.code_execution_result):
            if work:
                self.answer.other(msgspec.json.encode(work), progress=True)

    def _call(self, call: _Call, index: int) -> None:
        if call.name:
            self._close_call(index)
        if not (call.will_continue or call.partial_args or index in self._growing):
            if call.name:
                tools = self.answer.choice(index).tools
                whole = call.args if call.args is not None else {}
                delta = tools.add_whole(id=call.id, name=call.name, arguments=whole)
                self.answer.tool(delta, index)
            return
        growing = self._growing.get(index)
        if growing is None:
            growing = self._growing[index] = _Growing(call)
        for arg in call.partial_args or ():
            growing.take(arg)
        self.answer.tool(None, index)
        if not call.will_continue:
            self._close_call(index)

    def _close_call(self, index: int) -> None:
        growing = self._growing.pop(index, None)
        if growing is not None:
            tools = self.answer.choice(index).tools
            delta = tools.add_whole(id=growing.id, name=growing.name, arguments=growing.arguments())
            self.answer.tool(delta, index)

    def _finish(self, reason: str, index: int) -> None:
        self._close_call(index)
        if reason in _MALFORMED:
            self.answer.fail(ProviderFault(code=reason, status=502))
            return
        verdict = StreamOutcome.COMPLETED
        if reason == _LENGTH:
            verdict = StreamOutcome.LENGTH
        elif reason in _FILTERED:
            verdict = StreamOutcome.CONTENT_FILTER
        self.answer.finish(reason, verdict, index)

    def _usage(self, usage: _Usage) -> None:
        thoughts = usage.thoughts_token_count or 0
        self.answer.usage(
            input_tokens=(usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
            output_tokens=(usage.candidates_token_count or 0) + thoughts,
            reasoning_tokens=thoughts,
            cache_read_tokens=usage.cached_content_token_count,
        )

    def _interaction(self, kind: str, data: bytes) -> None:
        """Take an event of the interactions interface."""
        found = _read_interaction(data, self.answer)
        if found is None:
            return
        index = found.index or 0
        if kind == "step.start" and found.step is not None:
            self._steps[index] = found.step.type or ""
            if found.step.type == "function_call":
                step = found.step
                tools = self.answer.choice(0).tools
                self.answer.tool(
                    tools.open(index=index, id=step.id, name=step.name, initial=step.arguments)
                )
        elif kind == "step.delta" and found.delta is not None:
            self._step_delta(found.delta, index, data)
        elif kind == "interaction.completed":
            self._completed(found.interaction or _Interaction())
        elif kind == "error":
            self.answer.fail(named_fault(loads(data, self.answer)))
        elif kind not in {"step.stop", "interaction.created", "interaction.status_update"}:
            self.answer.unknown(data)

    def _step_delta(self, delta: "_StepDelta", index: int, data: bytes) -> None:
        if delta.type == "text":
            if delta.text:
                thought = self._steps.get(index) == "thought"
                (self.answer.reasoning if thought else self.answer.text)(delta.text)
        elif delta.type == "arguments_delta":
            tools = self.answer.choice(0).tools
            self.answer.tool(tools.add(index=index, arguments=delta.arguments))
        else:
            self.answer.other(data, progress=delta.type != "thought_signature")

    def _completed(self, interaction: "_Interaction") -> None:
        usage = interaction.usage or _InteractionUsage()
        thoughts = usage.total_thought_tokens or 0
        self.answer.usage(
            input_tokens=(usage.total_input_tokens or 0) + (usage.total_tool_use_tokens or 0),
            output_tokens=(usage.total_output_tokens or 0) + thoughts,
            reasoning_tokens=thoughts,
            cache_read_tokens=usage.total_cached_tokens,
        )
        status = interaction.status or "completed"
        if status == "failed":
            self.answer.fail(ProviderFault(code="server_error", status=500))
            return
        incomplete = status in {"incomplete", "budget_exceeded"}
        verdict = StreamOutcome.LENGTH if incomplete else StreamOutcome.COMPLETED
        self.answer.finish(status, verdict)
        self.answer.end()


class _Step(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    name: str | None = None
    arguments: Any = None


class _StepDelta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    arguments: Any = None


class _InteractionUsage(msgspec.Struct, gc=False):
    total_input_tokens: int | None = None
    total_output_tokens: int | None = None
    total_thought_tokens: int | None = None
    total_cached_tokens: int | None = None
    total_tool_use_tokens: int | None = None


class _Interaction(msgspec.Struct, gc=False):
    status: str | None = None
    usage: _InteractionUsage | None = None


class _InteractionEvent(msgspec.Struct, gc=False):
    index: int | None = None
    step: _Step | None = None
    delta: _StepDelta | None = None
    interaction: _Interaction | None = None


_read_interaction = reader(_InteractionEvent)
