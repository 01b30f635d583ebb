"""Ollama's chat: lines of JSON, arguments as objects, pictures beside the text."""

from collections.abc import Sequence
from typing import Any

import msgspec

from client_sdk.llm.endpoints import Endpoint
from client_sdk.llm.messages import (
    Picture,
    calls_of,
    foreign,
    functions,
    names_of_calls,
    parts,
    role_of,
    text_of,
)
from client_sdk.llm.options import Generation, Message, Tool, given, merged

PATH = "/api/chat"


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
    names = names_of_calls(messages)
    sent: dict[str, Any] = {
        "model": model,
        "messages": [_message(message, names) for message in messages],
        "stream": stream,
    }
    if tools and how.tool_choice != "none":
        own = [{"type": "function", "function": function} for function in functions(tools)]
        sent["tools"] = [*own, *foreign(tools)]
    options = given(
        num_predict=how.max_tokens,
        temperature=how.temperature,
        top_p=how.top_p,
        stop=list(how.stop) if how.stop else None,
        seed=how.seed,
    )
    if options:
        sent["options"] = options
    return merged(sent, how.extra)


def _message(message: Message, names: dict[str, str]) -> dict[str, Any]:
    role = role_of(message)
    said: dict[str, Any] = {"role": "system" if role == "developer" else role}
    said["content"] = text_of(message)
    pictures = [part.data for part in parts(message) if isinstance(part, Picture) and part.data]
    if pictures:
        said["images"] = pictures
    if role == "tool":
        said["tool_name"] = message.get("name") or names.get(str(message.get("tool_call_id")), "")
    calls = calls_of(message)
    if calls:
        said["tool_calls"] = [{"function": {"name": c.name, "arguments": c.input}} for c in calls]
    return said


def as_stream(answer: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A whole answer as the lines of a stream, which it is already; None when it is none."""
    return [answer] if "message" in answer or "response" in answer else None


def frame(line: dict[str, Any]) -> bytes:
    """One line of a stream."""
    return msgspec.json.encode(line) + b"\n"
