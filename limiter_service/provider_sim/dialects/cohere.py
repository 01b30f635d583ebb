"""The Cohere v2 chat dialect."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from limiter_service.provider_sim.content import Part, Reasoning, Text, Tool, ToolCall
from limiter_service.provider_sim.dialects import sse
from limiter_service.provider_sim.dialects.base import (
    Frame,
    Json,
    Place,
    Request,
    Size,
    encode,
    estimate,
)
from limiter_service.provider_sim.dialects.openai_chat import ChatTool, Message
from limiter_service.provider_sim.dialects.reading import read
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import (
    CONTEXT_WINDOW,
    ErrorAnswer,
    Kind,
    Problem,
    too_long,
)
from limiter_service.provider_sim.provider import Reply

NAME = "cohere"
RULES = Rules.COHERE
STREAM_TYPE = sse.MEDIA_TYPE
REQUEST_ID = "x-debug-trace-id"

_ERRORS: dict[Kind, tuple[int, str]] = {
    Kind.QUOTA: (402, "You have reached your monthly billing limit."),
    Kind.OVERLOADED: (503, "service unavailable, please try again later"),
    Kind.SERVER: (500, "internal server error"),
    Kind.TIMEOUT: (504, "gateway timeout"),
    Kind.KEY: (401, "invalid api token"),
    Kind.PERMISSION: (403, "you do not have permission to use this resource"),
    Kind.ROUTE: (404, "404 page not found"),
    Kind.METHOD: (405, "method not allowed"),
    Kind.FILTERED: (422, "blocked output: please adjust the prompt"),
}


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that matter here; others are accepted and ignored."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: Size | None = None
    stream: bool = False
    tools: list[ChatTool] | None = None
    tool_choice: str | None = None


_decoder = msgspec.json.Decoder(ChatRequest)


def read_request(body: bytes, path: Mapping[str, str]) -> Request:  # noqa: ARG001
    """The request in `body`; anything else raises `BadRequestError`."""
    sent = read(_decoder, body)
    functions = [tool.function for tool in sent.tools or () if tool.function]
    measured = [message.content for message in sent.messages]
    last = sent.messages[-1]
    return Request(
        model=sent.model,
        input_tokens=estimate(*measured, *map(msgspec.to_builtins, functions)),
        max_output=sent.max_tokens,
        stream=sent.stream,
        tools=[Tool(function.name, function.parameters) for function in functions],
        wants_call=bool(functions) and sent.tool_choice != "NONE" and last.role != "tool",
    )


def plain(request: Request, reply: Reply) -> bytes:  # noqa: ARG001 - as the others
    """The whole answer."""
    answer = reply.answer
    message: Json = {"role": "assistant"}
    content: list[Json] = []
    if answer.reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning})
    if answer.calls:
        message["tool_plan"] = answer.text
        message["tool_calls"] = [_tool_call(reply, call, call.arguments) for call in answer.calls]
    else:
        content.append({"type": "text", "text": answer.text})
    message["content"] = content
    return encode(
        {
            "id": reply.identity,
            "finish_reason": _finish(reply),
            "message": message,
            "usage": _usage(reply),
        }
    )


def frames(request: Request, reply: Reply) -> Iterator[Frame]:  # noqa: ARG001 - as the others
    """The events of a message: text before calls is the plan for them."""
    opening = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    begun = _event("message-start", {**opening, "citations": []}, id=reply.identity)
    yield Frame(begun, Place.OPENING)
    planned = bool(reply.answer.calls)
    index = 0
    for part in reply.answer.parts:
        if planned and isinstance(part, Text):
            for piece in part.pieces:
                yield Frame(_event("tool-plan-delta", {"tool_plan": piece}), Place.CONTENT, 1)
            continue
        yield from _part(reply, part, part.number if isinstance(part, ToolCall) else index)
        index += 1
    end = {"finish_reason": _finish(reply), "usage": _usage(reply)}
    yield Frame(sse.event({"type": "message-end", "delta": end}, "message-end"), Place.END)


def _part(reply: Reply, part: Part, index: int) -> Iterator[Frame]:
    match part:
        case Reasoning():
            yield from _content(index, "thinking", part.pieces)
        case Text():
            yield from _content(index, "text", part.pieces)
        case ToolCall():
            call = {"tool_calls": _tool_call(reply, part, "")}
            yield Frame(_event("tool-call-start", call, index=index), Place.CONTENT, 1)
            for piece in () if part.arguments == "{}" else part.pieces:
                function = {"tool_calls": {"function": {"arguments": piece}}}
                yield Frame(_event("tool-call-delta", function, index=index), Place.CONTENT, 1)
            yield Frame(_indexed("tool-call-end", index), Place.CONTENT)


def _content(index: int, kind: str, pieces: object) -> Iterator[Frame]:
    assert isinstance(pieces, tuple)
    begun = {"content": {"type": kind, kind: ""}}
    yield Frame(_event("content-start", begun, index=index), Place.CONTENT)
    for piece in pieces:
        yield Frame(
            _event("content-delta", {"content": {kind: piece}}, index=index), Place.CONTENT, 1
        )
    yield Frame(_indexed("content-end", index), Place.CONTENT)


def _tool_call(reply: Reply, call: ToolCall, arguments: str) -> Json:
    return {
        "id": f"{call.name}_{reply.identity[:10]}{call.number:02d}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _event(name: str, message: Json, **fields: object) -> bytes:
    return sse.event({"type": name, **fields, "delta": {"message": message}}, name)


def _indexed(name: str, index: int) -> bytes:
    return sse.event({"type": name, "index": index}, name)


def _usage(reply: Reply) -> Json:
    counted = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
    return {"billed_units": counted, "tokens": counted, "cached_tokens": reply.sizes.cache_read}


def _finish(reply: Reply) -> str:
    if reply.cut_short:
        return "MAX_TOKENS"
    return "TOOL_CALL" if reply.answer.calls else "COMPLETE"


def keepalive() -> bytes:
    """A comment."""
    return b": keep-alive\n\n"


def broken() -> bytes:
    """An event whose payload is cut off."""
    return b'event: content-delta\ndata: {"type":"content-delta","index":0,"delta":{\n\n'


def stream_error(problem: Problem) -> bytes:
    """The end of the message, with an error as its reason."""
    _, text = _describe(problem)
    end = {"finish_reason": "ERROR", "error": text, "usage": None}
    return sse.event({"type": "message-end", "delta": end}, "message-end")


def error(problem: Problem) -> ErrorAnswer:
    """The status and body of an error."""
    status, text = _describe(problem)
    return ErrorAnswer(status=status, body=encode({"message": text}))


def _describe(problem: Problem) -> tuple[int, str]:
    match problem.kind:
        case Kind.RATE_LIMIT | Kind.TOO_LARGE:
            refused = problem.refused
            limit = "" if refused is None else f", limited to {refused.limit} API calls / minute"
            return 429, f"You are using a key{limit}. You can contact us to increase your limit."
        case Kind.CONTEXT:
            return 400, (
                "too many tokens: total number of tokens in the prompt cannot exceed"
                f" {CONTEXT_WINDOW} - received {too_long(problem)}."
            )
        case Kind.MODEL:
            return (
                404,
                f"model '{problem.model}' not found, make sure the correct model ID was used",
            )
        case Kind.INVALID:
            return 400, f"invalid request: {problem.message}"
        case _:
            return _ERRORS[problem.kind]
