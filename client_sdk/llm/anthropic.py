"""Anthropic messages: system apart, results of tools as the user's words, blocks for all else."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from client_sdk.llm.endpoints import Endpoint
from client_sdk.llm.messages import (
    Picture,
    calls_of,
    chosen,
    foreign,
    functions,
    parts,
    system_of,
    thoughts_of,
    turns,
)
from client_sdk.llm.options import Generation, Message, Tool, given, merged
from client_sdk.streaming import Thought

PATH = "/v1/messages"
DEFAULT_MAX_TOKENS = 4096
"""Sent where the caller gives none: the provider insists on a number."""


def body(
    endpoint: Endpoint,  # noqa: ARG001  # as all dialects
    model: str,
    messages: Sequence[Message],
    tools: Sequence[Tool] | None,
    how: Generation,
    *,
    stream: bool,
) -> dict[str, Any]:
    """The body of a request."""
    sent: dict[str, Any] = {
        "model": model,
        "max_tokens": how.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": turns(messages, _blocks, model="assistant", under="content"),
    }
    if system := system_of(messages):
        sent["system"] = system
    if stream:
        sent["stream"] = True
    if tools:
        sent["tools"] = [*map(_tool, functions(tools)), *foreign(tools)]
    sent |= given(
        temperature=how.temperature,
        top_p=how.top_p,
        stop_sequences=list(how.stop) if how.stop else None,
        tool_choice=_choice(how.tool_choice),
    )
    return merged(sent, how.extra)


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {
        **given(name=function.get("name"), description=function.get("description")),
        "input_schema": schema,
    }


def _choice(tool_choice: Any) -> Any:
    if tool_choice is None:
        return None
    word, name = chosen(tool_choice)
    if word == "one":
        return {"type": "tool", "name": name}
    return {"type": "any" if word == "required" else word}


def _blocks(message: Message, role: str) -> Iterator[Mapping[str, Any]]:
    said = [_block(part) for part in parts(message)]
    if role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
        yield {**result, "content": said} if said else result
        return
    thoughts = [thought for thought in thoughts_of(message) if thought.text or thought.redacted]
    yield from (_thought(thought) for thought in thoughts if not thought.before)
    yield from said
    for number, call in enumerate(calls_of(message)):
        yield from (_thought(thought) for thought in thoughts if 0 < number == thought.before)
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}


def _thought(thought: Thought) -> Mapping[str, Any]:
    if thought.redacted:
        return {"type": "redacted_thinking", "data": thought.redacted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _block(part: str | Picture | Mapping[str, Any]) -> Mapping[str, Any]:
    match part:
        case str():
            return {"type": "text", "text": part}
        case Picture(data=None):
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        case Picture():
            source = {"type": "base64", "media_type": part.media_type, "data": part.data}
            return {"type": "image", "source": source}
        case _:
            return part


def as_stream(answer: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A whole answer as the events of a stream; None when it is no answer."""
    content = answer.get("content")
    if not isinstance(content, list):
        return None
    blocks = [
        {"type": "content_block_start", "index": index, "content_block": block}
        for index, block in enumerate(content)
    ]
    delta = {"stop_reason": answer.get("stop_reason")}
    return [
        {"type": "message_start", "message": {"id": answer.get("id")}},
        *blocks,
        {"type": "message_delta", "delta": delta, "usage": answer.get("usage")},
        {"type": "message_stop"},
    ]
