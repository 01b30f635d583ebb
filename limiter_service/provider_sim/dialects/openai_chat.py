"""The OpenAI chat dialect: requests, answers and stream chunks.

OpenAI's own models do not show what they think: it takes its time and is counted. Models of
other names show it as `reasoning_content`, as OpenAI-compatible servers do.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from limiter_service.provider_sim.content import Reasoning, Text, Tool, ToolCall
from limiter_service.provider_sim.dialects import openai_errors, sse
from limiter_service.provider_sim.dialects.base import (
    FIRST_CREATED,
    Frame,
    Json,
    Place,
    Request,
    Size,
    encode,
    estimate,
)
from limiter_service.provider_sim.dialects.reading import read, text_of
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import ErrorAnswer, Problem
from limiter_service.provider_sim.provider import Reply

NAME = "openai-chat"
RULES = Rules.PLAIN
STREAM_TYPE = sse.MEDIA_TYPE
REQUEST_ID = "x-request-id"

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-5", "gpt-5-mini")

_HIDES_THOUGHTS = re.compile(r"gpt|o\d|chatgpt")
_WITH_USAGE = "usage"


class Message(msgspec.Struct, frozen=True):
    """One turn; its content is measured."""

    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")


class Function(msgspec.Struct, frozen=True):
    """A function that a tool is."""

    name: str
    parameters: Json = {}


class ChatTool(msgspec.Struct, frozen=True):
    """A tool on offer; kinds that are no functions are never called."""

    function: Function | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream carries besides text."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a chat completion that matter here; others are accepted and ignored."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: Size | None = None
    max_completion_tokens: Size | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools: list[ChatTool] | None = None
    tool_choice: object = "auto"


_decoder = msgspec.json.Decoder(ChatRequest)


def read_request(body: bytes, path: Mapping[str, str]) -> Request:  # noqa: ARG001
    """The request in `body`; anything else raises `BadRequestError`."""
    return neutral(read(_decoder, body))


def neutral(chat: ChatRequest) -> Request:
    """A chat completion's fields as every dialect has them."""
    limit = chat.max_completion_tokens
    functions = [tool.function for tool in chat.tools or () if tool.function]
    last = chat.messages[-1]
    usage = chat.stream_options is not None and chat.stream_options.include_usage
    # Tools count as well, but a request without them is measured by its messages alone.
    measured = [message.content for message in chat.messages]
    return Request(
        model=chat.model,
        input_tokens=estimate(*measured, *map(msgspec.to_builtins, functions)),
        max_output=chat.max_tokens if limit is None else limit,
        stream=bool(chat.stream),
        tools=[Tool(function.name, function.parameters) for function in functions],
        wants_call=bool(functions) and chat.tool_choice != "none" and last.role != "tool",
        prefill=text_of(last.content) if last.role == "assistant" else "",
        options=frozenset({_WITH_USAGE} if usage else ()),
    )


def plain(request: Request, reply: Reply) -> bytes:
    """The plain answer."""
    answer = reply.answer
    calls = [tool_call(reply, call) for call in answer.calls]
    message: Json = {
        "role": "assistant",
        "content": None if calls and not answer.text else answer.text,
        "refusal": None,
    }
    if answer.reasoning and shows_thoughts(request):
        message["reasoning_content"] = answer.reasoning
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish(reply)}
    return encode(
        {
            "id": f"chatcmpl-{reply.identity}",
            "object": "chat.completion",
            "created": FIRST_CREATED + reply.number,
            "model": request.model,
            "choices": [choice],
            "usage": usage_of(reply),
            "system_fingerprint": "fp_sim",
        }
    )


def frames(request: Request, reply: Reply) -> Iterator[Frame]:
    """A chunk for each token."""
    opening: Json = {"role": "assistant", "content": "", "refusal": None}
    yield Frame(_chunk(request, reply, opening), Place.OPENING)
    for delta in _deltas(request, reply):
        data = b"" if delta is None else _chunk(request, reply, delta)
        yield Frame(data, Place.CONTENT, 1)
    yield Frame(_chunk(request, reply, {}, finish(reply)), Place.CLOSING)
    if _WITH_USAGE in request.options:
        yield Frame(_event(request, reply, [], usage_of(reply)), Place.CLOSING)
    yield Frame(sse.DONE, Place.END)


def _deltas(request: Request, reply: Reply) -> Iterator[Json | None]:
    """What each token of output adds; None is a thought that is not shown."""
    for part in reply.answer.parts:
        match part:
            case Reasoning():
                shown = shows_thoughts(request)
                for piece in part.pieces:
                    yield {"reasoning_content": piece} if shown else None
            case Text():
                for piece in part.pieces:
                    yield {"content": piece}
            case ToolCall():
                first = tool_call(reply, part, arguments="")
                yield {"tool_calls": [{"index": part.number, **first}]}
                for piece in part.pieces:
                    function = {"arguments": piece}
                    yield {"tool_calls": [{"index": part.number, "function": function}]}


def tool_call(reply: Reply, call: ToolCall, arguments: str | None = None) -> Json:
    """A tool call, whole or as it begins."""
    text = call.arguments if arguments is None else arguments
    return {
        "id": f"call_{reply.identity[:22]}{call.number:02d}",
        "type": "function",
        "function": {"name": call.name, "arguments": text},
    }


def shows_thoughts(request: Request) -> bool:
    """Whether a model of this name streams its reasoning."""
    return _HIDES_THOUGHTS.match(request.model) is None


def _chunk(request: Request, reply: Reply, delta: Json, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event(request, reply, [choice], None)


def _event(request: Request, reply: Reply, choices: list[Json], usage: Json | None) -> bytes:
    chunk: Json = {
        "id": f"chatcmpl-{reply.identity}",
        "object": "chat.completion.chunk",
        "created": FIRST_CREATED + reply.number,
        "model": request.model,
        "system_fingerprint": "fp_sim",
        "choices": choices,
    }
    if _WITH_USAGE in request.options:
        chunk["usage"] = usage
    return sse.event(chunk)


def usage_of(reply: Reply) -> Json:
    """Tokens of one answer."""
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.sizes.cache_read},
        "completion_tokens_details": {"reasoning_tokens": reply.answer.reasoning_tokens},
    }


def finish(reply: Reply) -> str:
    """Why the answer ended."""
    if reply.cut_short:
        return "length"
    return "tool_calls" if reply.answer.calls else "stop"


def model_list() -> Json:
    """The models that the list names; requests may name any other."""
    row = {"object": "model", "created": FIRST_CREATED, "owned_by": "system"}
    return {"object": "list", "data": [{"id": name, **row} for name in MODELS]}


def keepalive() -> bytes:
    """A comment."""
    return b": keep-alive\n\n"


def broken() -> bytes:
    """An event whose payload is cut off."""
    return b'data: {"id":"chatcmpl-sim","choices":[{"index":0,"delta":{"content":\n\n'


def stream_error(problem: Problem) -> bytes:
    """A chunk that is an error."""
    _, inside = openai_errors.describe(problem)
    return sse.event({"error": msgspec.to_builtins(inside)})


def error(problem: Problem) -> ErrorAnswer:
    """The status and body of an error."""
    return openai_errors.error(problem)
