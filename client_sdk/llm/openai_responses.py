"""OpenAI responses: items in place of messages."""

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
    role_of,
    text_of,
)
from client_sdk.llm.options import Generation, Message, Tool, given, merged

PATH = "/responses"


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
    sent: dict[str, Any] = {"model": model, "input": [i for m in messages for i in _items(m)]}
    if stream:
        sent["stream"] = True
    if tools:
        own = [{"type": "function", "strict": False, **f} for f in functions(tools)]
        sent["tools"] = [*own, *foreign(tools)]
    sent |= given(
        max_output_tokens=how.max_tokens,
        temperature=how.temperature,
        top_p=how.top_p,
        tool_choice=_choice(how.tool_choice),
    )
    return merged(sent, how.extra)


def _choice(tool_choice: Any) -> Any:
    if tool_choice is None:
        return None
    word, name = chosen(tool_choice)
    return {"type": "function", "name": name} if word == "one" else word


def _items(message: Message) -> Iterator[dict[str, Any]]:
    role = role_of(message)
    if role == "tool":
        yield {
            "type": "function_call_output",
            "call_id": message.get("tool_call_id"),
            "output": text_of(message),
        }
        return
    content = list(_content(message, "output_text" if role == "assistant" else "input_text"))
    if content:
        yield {"type": "message", "role": role, "content": content}
    for call in calls_of(message):
        yield {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }


def _content(message: Message, kind: str) -> Iterator[Mapping[str, Any]]:
    for part in parts(message):
        match part:
            case str():
                yield {"type": kind, "text": part}
            case Picture():
                url = part.url or f"data:{part.media_type};base64,{part.data}"
                yield {"type": "input_image", "image_url": url}
            case _:
                yield part


def as_stream(answer: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A whole answer as the events of a stream; None when it is no answer."""
    if not isinstance(answer.get("output"), list):
        return None
    events: list[dict[str, Any]] = [
        {"type": "response.reasoning_summary_text.delta", "delta": part.get("text")}
        for item in answer["output"]
        if isinstance(item, dict) and item.get("type") == "reasoning"
        for part in item.get("summary") or ()
        if isinstance(part, dict)
    ]
    status = answer.get("status")
    last = status if status in {"incomplete", "failed"} else "completed"
    return [
        {"type": "response.created", "response": {"id": answer.get("id")}},
        *events,
        {"type": f"response.{last}", "response": answer},
    ]
