"""Mistral's dialect: OpenAI's chat with differences.

Thoughts are parts of the content; a call that stands alone comes in pieces whose later ones
have an empty name and no id, parallel ones come whole in one delta; usage stands in the
chunk that finishes.
"""

from collections.abc import Iterator, Mapping

import msgspec

from limiter_service.provider_sim.content import Reasoning, Text, ToolCall
from limiter_service.provider_sim.dialects import openai_chat, sse
from limiter_service.provider_sim.dialects.base import (
    FIRST_CREATED,
    Frame,
    Json,
    Place,
    Request,
    encode,
)
from limiter_service.provider_sim.limits import Meter
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import (
    CONTEXT_WINDOW,
    ErrorAnswer,
    Kind,
    Problem,
    too_long,
)
from limiter_service.provider_sim.provider import Reply

NAME = "mistral"
RULES = Rules.MISTRAL
STREAM_TYPE = sse.MEDIA_TYPE
REQUEST_ID = "mistral-correlation-id"

_ERRORS: dict[Kind, tuple[int, str, str | None, str]] = {
    Kind.QUOTA: (402, "billing_error", None, "Monthly spend limit reached"),
    Kind.OVERLOADED: (
        429,
        "service_tier_capacity_exceeded",
        "3505",
        "Service tier capacity exceeded for this model.",
    ),
    Kind.SERVER: (500, "internal_server_error", "3000", "Service unavailable."),
    Kind.TIMEOUT: (504, "gateway_timeout", None, "The upstream server is timing out"),
    Kind.KEY: (401, "unauthorized", None, "Unauthorized"),
    Kind.PERMISSION: (403, "forbidden", None, "Forbidden"),
    Kind.ROUTE: (404, "not_found", None, "no Route matched with those values"),
    Kind.METHOD: (405, "method_not_allowed", None, "Method Not Allowed"),
    Kind.FILTERED: (403, "guardrail_violation", "2000", "The prompt was blocked by a guardrail"),
}


def read_request(body: bytes, path: Mapping[str, str]) -> Request:
    """The request in `body`; anything else raises `BadRequestError`."""
    return openai_chat.read_request(body, path)


def plain(request: Request, reply: Reply) -> bytes:
    """The whole answer."""
    answer = reply.answer
    message: Json = {"role": "assistant", "content": answer.text, "tool_calls": None}
    if answer.reasoning:
        message["content"] = [_thinking(answer.reasoning), {"type": "text", "text": answer.text}]
    if answer.calls:
        message["tool_calls"] = [_tool_call(reply, call) for call in answer.calls]
    choice = {"index": 0, "message": message, "finish_reason": openai_chat.finish(reply)}
    return encode({**_head(request, reply, "chat.completion"), "choices": [choice], **_use(reply)})


def frames(request: Request, reply: Reply) -> Iterator[Frame]:
    """A chunk for each token."""
    opening = _chunk(request, reply, {"role": "assistant", "content": ""})
    yield Frame(sse.event(opening), Place.OPENING)
    for delta, tokens in _deltas(reply):
        yield Frame(sse.event(_chunk(request, reply, delta)), Place.CONTENT, tokens)
    last = _chunk(request, reply, {"content": ""}, openai_chat.finish(reply))
    yield Frame(sse.event({**last, **_use(reply)}), Place.CLOSING)
    yield Frame(sse.DONE, Place.END)


def _deltas(reply: Reply) -> Iterator[tuple[Json, int]]:
    for part in reply.answer.parts:
        match part:
            case Reasoning():
                for piece in part.pieces:
                    yield {"content": [_thinking(piece)]}, 1
            case Text():
                for piece in part.pieces:
                    yield {"content": piece}, 1
            case ToolCall():
                pass
    calls = reply.answer.calls
    if len(calls) == 1:
        yield from _pieces(reply, calls[0])
    elif calls:
        whole = [_tool_call(reply, call) for call in calls]
        tokens = sum(len(call.pieces) + 1 for call in calls)
        yield {"content": None, "tool_calls": whole}, tokens


def _pieces(reply: Reply, call: ToolCall) -> Iterator[tuple[Json, int]]:
    first = _tool_call(reply, call)
    first["function"] = {"name": call.name, "arguments": ""}
    yield {"content": "", "tool_calls": [first]}, 1
    for piece in call.pieces:
        function = {"name": "", "arguments": piece}
        yield {"content": "", "tool_calls": [{"type": "function", "function": function}]}, 1


def _tool_call(reply: Reply, call: ToolCall) -> Json:
    # Nine letters and digits: the dialect takes no other ids back.
    identity = f"{reply.identity[:7]}{call.number:02d}"
    return {"id": identity, "function": {"name": call.name, "arguments": call.arguments}}


def _thinking(text: str) -> Json:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def _chunk(request: Request, reply: Reply, delta: Json, finish: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {**_head(request, reply, "chat.completion.chunk"), "choices": [choice]}


def _head(request: Request, reply: Reply, kind: str) -> Json:
    return {
        "id": reply.identity,
        "object": kind,
        "created": FIRST_CREATED + reply.number,
        "model": request.model,
    }


def _use(reply: Reply) -> Json:
    total = reply.input_tokens + reply.output_tokens
    return {
        "usage": {
            "prompt_tokens": reply.input_tokens,
            "total_tokens": total,
            "completion_tokens": reply.output_tokens,
            "prompt_tokens_details": {"cached_tokens": reply.sizes.cache_read},
        }
    }


def keepalive() -> bytes:
    """A comment."""
    return b": keep-alive\n\n"


def broken() -> bytes:
    """An event whose payload is cut off."""
    return openai_chat.broken()


def stream_error(problem: Problem) -> bytes:
    """An event with the body of the error."""
    return sse.event(msgspec.json.decode(error(problem).body))


def error(problem: Problem) -> ErrorAnswer:
    """The status and body of an error, which has no wrapper."""
    status, kind, code, message = _describe(problem)
    body: Json = {
        "object": "error",
        "message": message,
        "type": kind,
        "param": problem.param,
        "code": code,
    }
    return ErrorAnswer(status=status, body=encode(body))


def _describe(problem: Problem) -> tuple[int, str, str | None, str]:
    match problem.kind:
        case Kind.RATE_LIMIT | Kind.TOO_LARGE:
            refused = problem.refused
            tokens = refused is not None and refused.meter is Meter.TOKENS
            text = "Tokens rate limit exceeded" if tokens else "Requests rate limit exceeded"
            return 429, "rate_limited", "1300", text
        case Kind.CONTEXT:
            return (
                400,
                "invalid_request_prompt",
                "3051",
                (
                    f"Prompt contains {too_long(problem)} tokens, too large for model with"
                    f" {CONTEXT_WINDOW} maximum context length"
                ),
            )
        case Kind.MODEL:
            return 400, "invalid_model", "1500", f"Invalid model: {problem.model}"
        case Kind.INVALID:
            return 422, "invalid_request_error", problem.code, problem.message
        case _:
            return _ERRORS[problem.kind]
