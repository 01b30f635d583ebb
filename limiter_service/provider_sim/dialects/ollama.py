"""Ollama's chat dialect: lines of JSON, the last of which says that it is done.

A call streams unless it says that it does not.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from limiter_service.provider_sim.content import Reasoning, Text, Tool, ToolCall
from limiter_service.provider_sim.dialects.base import (
    FIRST_CREATED,
    Frame,
    Json,
    Place,
    Request,
    encode,
    estimate,
)
from limiter_service.provider_sim.dialects.openai_chat import ChatTool, Message
from limiter_service.provider_sim.dialects.reading import read, text_of
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import ErrorAnswer, Kind, Problem
from limiter_service.provider_sim.provider import Reply

NAME = "ollama"
RULES = Rules.OLLAMA
STREAM_TYPE = "application/x-ndjson"
REQUEST_ID = "x-request-id"

_BUSY = "server busy, please try again. maximum pending requests exceeded"
_ERRORS: dict[Kind, tuple[int, str]] = {
    Kind.RATE_LIMIT: (503, _BUSY),
    Kind.TOO_LARGE: (503, _BUSY),
    Kind.QUOTA: (402, "this model requires a subscription"),
    Kind.OVERLOADED: (503, _BUSY),
    Kind.SERVER: (500, "llama runner process has terminated: signal: killed"),
    Kind.TIMEOUT: (504, "timed out waiting for llama runner to start"),
    Kind.KEY: (401, "unauthorized"),
    Kind.PERMISSION: (403, "forbidden"),
    Kind.CONTEXT: (400, "the input length exceeds the context length"),
    Kind.ROUTE: (404, "404 page not found"),
    Kind.METHOD: (405, "405 method not allowed"),
    Kind.FILTERED: (400, "the prompt was rejected"),
}


class Options(msgspec.Struct, frozen=True):
    """How an answer is generated; fewer than one token is no limit."""

    num_predict: int | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that matter here; others are accepted and ignored."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = True
    tools: list[ChatTool] | None = None
    options: Options | None = None


_decoder = msgspec.json.Decoder(ChatRequest)


def read_request(body: bytes, path: Mapping[str, str]) -> Request:  # noqa: ARG001
    """The request in `body`; anything else raises `BadRequestError`."""
    sent = read(_decoder, body)
    functions = [tool.function for tool in sent.tools or () if tool.function]
    limit = sent.options.num_predict if sent.options else None
    last = sent.messages[-1]
    measured = [message.content for message in sent.messages]
    return Request(
        model=sent.model,
        input_tokens=estimate(*measured, *map(msgspec.to_builtins, functions)),
        max_output=limit if limit and limit > 0 else None,
        stream=sent.stream is not False,
        tools=[Tool(function.name, function.parameters) for function in functions],
        wants_call=bool(functions) and last.role != "tool",
        prefill=text_of(last.content) if last.role == "assistant" else "",
    )


def plain(request: Request, reply: Reply) -> bytes:
    """The whole answer."""
    answer = reply.answer
    message: Json = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        message["thinking"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_tool_call(call) for call in answer.calls]
    return encode({**_line(request, reply, message), **_done(reply)})


def frames(request: Request, reply: Reply) -> Iterator[Frame]:
    """A line for each token; calls come whole."""

    def line(tokens: int, **fields: object) -> Frame:
        message = {"role": "assistant", "content": "", **fields}
        data = encode({**_line(request, reply, message), "done": False})
        return Frame(data + b"\n", Place.CONTENT, tokens)

    for part in reply.answer.parts:
        match part:
            case Reasoning():
                for piece in part.pieces:
                    yield line(1, thinking=piece)
            case Text():
                for piece in part.pieces:
                    yield line(1, content=piece)
            case ToolCall():
                yield line(len(part.pieces) + 1, tool_calls=[_tool_call(part)])
    empty = {"role": "assistant", "content": ""}
    last = encode({**_line(request, reply, empty), **_done(reply)})
    yield Frame(last + b"\n", Place.END)


def _tool_call(call: ToolCall) -> Json:
    try:
        arguments = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:  # the allowed output ended within them
        arguments = {}
    return {"function": {"index": call.number, "name": call.name, "arguments": arguments}}


def _line(request: Request, reply: Reply, message: Json) -> Json:
    created = datetime.fromtimestamp(FIRST_CREATED + reply.number, UTC)
    return {
        "model": request.model,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "message": message,
    }


def _done(reply: Reply) -> Json:
    total, first = (round(s * 1e9) for s in (reply.duration, reply.first_token))
    return {
        "done": True,
        "done_reason": "length" if reply.cut_short else "stop",
        "total_duration": total,
        "load_duration": 0,
        "prompt_eval_count": reply.input_tokens,
        "prompt_eval_duration": first,
        "eval_count": reply.output_tokens,
        "eval_duration": total - first,
    }


def keepalive() -> bytes:
    """The server sends none; an empty line is what parsers skip."""
    return b"\n"


def broken() -> bytes:
    """A line that is cut off."""
    return b'{"model":"sim","message":{"role":"assistant","content":\n'


def stream_error(problem: Problem) -> bytes:
    """A line that is an error."""
    return error(problem).body + b"\n"


def error(problem: Problem) -> ErrorAnswer:
    """The status of an error; its text is all that the body has."""
    match problem.kind:
        case Kind.MODEL:
            status, text = 404, f"model '{problem.model}' not found"
        case Kind.INVALID:
            status, text = 400, problem.message
        case _:
            status, text = _ERRORS[problem.kind]
    return ErrorAnswer(status=status, body=encode({"error": text}))
