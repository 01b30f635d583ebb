"""OpenAI chat: the neutral shape is its own, so little is translated. Compatible servers too."""

from collections.abc import Sequence
from typing import Any

import msgspec

from client_sdk.llm.endpoints import Endpoint
from client_sdk.llm.messages import foreign, functions
from client_sdk.llm.options import Generation, Message, Tool, given, merged

PATH = "/chat/completions"


def body(
    endpoint: Endpoint,
    model: str,
    messages: Sequence[Message],
    tools: Sequence[Tool] | None,
    how: Generation,
    *,
    stream: bool,
) -> dict[str, Any]:
    """The body of a request."""
    sent: dict[str, Any] = {"model": model, "messages": [*map(_message, messages)]}
    if stream:
        sent["stream"] = True
        if endpoint.usage_on_request:
            sent["stream_options"] = {"include_usage": True}
    if tools:
        own = [{"type": "function", "function": function} for function in functions(tools)]
        sent["tools"] = [*own, *foreign(tools)]
    sent |= given(
        temperature=how.temperature,
        top_p=how.top_p,
        seed=how.seed,
        stop=list(how.stop) if how.stop else None,
        tool_choice=how.tool_choice,
    )
    if how.max_tokens is not None:
        sent[endpoint.max_tokens] = how.max_tokens
    return merged(sent, how.extra)


def _message(message: Message) -> dict[str, Any]:
    """A message without what another provider has sealed."""
    return {name: value for name, value in message.items() if name != "thoughts"}


def as_stream(answer: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A whole answer as the chunks of a stream; None when it is no answer."""
    choices = answer.get("choices")
    if not isinstance(choices, list):
        return None
    chunk = dict(answer)
    chunk["choices"] = [
        {**choice, "delta": _delta(choice.get("message"))}
        for choice in choices
        if isinstance(choice, dict)
    ]
    return [chunk]


def _delta(message: Any) -> Any:
    """A message as one delta: its calls are numbered by their place."""
    if not isinstance(message, dict) or not isinstance(message.get("tool_calls"), list):
        return message
    calls = [
        {"index": number, **call} if isinstance(call, dict) else call
        for number, call in enumerate(message["tool_calls"])
    ]
    return {**message, "tool_calls": calls}


def frame(event: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + msgspec.json.encode(event) + b"\n\n"
