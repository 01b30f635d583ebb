"""The Anthropic messages dialect."""

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
from limiter_service.provider_sim.dialects.reading import read, text_of
from limiter_service.provider_sim.limits import Meter, Refused, TooLarge
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import (
    BadRequestError,
    ErrorAnswer,
    Kind,
    Problem,
    too_long,
)
from limiter_service.provider_sim.provider import Reply

NAME = "anthropic"
RULES = Rules.ANTHROPIC
STREAM_TYPE = sse.MEDIA_TYPE
REQUEST_ID = "request-id"

_CONTEXT = 200_000
_METERS = {
    Meter.REQUESTS: "requests per minute",
    Meter.INPUT: "input tokens per minute",
    Meter.OUTPUT: "output tokens per minute",
    Meter.TOKENS: "tokens per minute",
    Meter.CONCURRENCY: "concurrent connections",
}
_ERRORS: dict[Kind, tuple[int, str, str]] = {
    Kind.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    Kind.SERVER: (500, "api_error", "Internal server error"),
    Kind.TIMEOUT: (504, "timeout_error", "The request timed out"),
    Kind.KEY: (401, "authentication_error", "invalid x-api-key"),
    Kind.PERMISSION: (403, "permission_error", "Your API key may not use this resource"),
    Kind.ROUTE: (404, "not_found_error", "Not found"),
    Kind.METHOD: (405, "invalid_request_error", "Method Not Allowed"),
    Kind.FILTERED: (400, "invalid_request_error", "Output blocked by content filtering policy"),
}


class Message(msgspec.Struct, frozen=True):
    """One turn; its content is measured."""

    role: str
    content: msgspec.Raw


class OfferedTool(msgspec.Struct, frozen=True):
    """A tool on offer; a server's own have no schema and are never called."""

    name: str
    input_schema: Json | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether a tool has to, may or must not be called."""

    type: str = "auto"


class Thinking(msgspec.Struct, frozen=True):
    """Whether the model thinks before it answers."""

    type: str = "disabled"


class MessagesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that matter here; others are accepted and ignored."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: Size
    system: msgspec.Raw = msgspec.Raw(b"")
    stream: bool = False
    tools: list[OfferedTool] = []
    tool_choice: ToolChoice = ToolChoice()
    thinking: Thinking = Thinking()


_decoder = msgspec.json.Decoder(MessagesRequest)


def read_request(body: bytes, path: Mapping[str, str]) -> Request:  # noqa: ARG001
    """The request in `body`; anything else raises `BadRequestError`."""
    sent = read(_decoder, body)
    tools = [tool for tool in sent.tools if tool.input_schema is not None]
    last = sent.messages[-1]
    result = last.role == "user" and b'"tool_result"' in bytes(last.content)
    if sent.thinking.type != "disabled":
        _insist_on_thoughts(sent.messages)
    measured = [message.content for message in sent.messages]
    if bytes(sent.system):
        measured.append(sent.system)
    return Request(
        model=sent.model,
        input_tokens=estimate(*measured, *map(msgspec.to_builtins, tools)),
        max_output=sent.max_tokens,
        stream=sent.stream,
        tools=[Tool(tool.name, tool.input_schema or {}) for tool in tools],
        wants_call=bool(tools) and sent.tool_choice.type != "none" and not result,
        prefill=text_of(last.content) if last.role == "assistant" else "",
    )


def _insist_on_thoughts(messages: list[Message]) -> None:
    """Thoughts before a tool call come back, first of all and as they were sealed."""
    for number, message in enumerate(messages):
        if message.role != "assistant" or b'"tool_use"' not in bytes(message.content):
            continue
        place = f"messages.{number}.content.0"
        first = msgspec.json.decode(message.content)[0]
        if first["type"] not in {"thinking", "redacted_thinking"}:
            text = "Expected `thinking` or `redacted_thinking`, but found"
            raise BadRequestError(f"{place}.type: {text} `{first['type']}`")
        if first["type"] == "thinking" and first.get("signature") != _SIGNATURE:
            raise BadRequestError(f"{place}: Invalid `signature` in `thinking` block")


def plain(request: Request, reply: Reply) -> bytes:
    """The whole message."""
    content = [_block(reply, part) for part in reply.answer.parts]
    usage = _usage(reply, reply.output_tokens)
    return encode(_message(request, reply, content, _stop_reason(reply), usage))


def frames(request: Request, reply: Reply) -> Iterator[Frame]:
    """The events of a message; a ping follows the beginning of the first block."""
    message = _message(request, reply, [], None, _usage(reply, 1))
    yield Frame(_event("message_start", message=message), Place.OPENING)
    for index, part in enumerate(reply.answer.parts):
        begun = _event("content_block_start", index=index, content_block=_opened(reply, part))
        yield Frame(begun, Place.CONTENT, 1 if isinstance(part, ToolCall) else 0)
        if index == 0:
            yield Frame(_event("ping"), Place.CONTENT)
        for delta, tokens in _deltas(part):
            data = _event("content_block_delta", index=index, delta=delta)
            yield Frame(data, Place.CONTENT, tokens)
        yield Frame(_event("content_block_stop", index=index), Place.CONTENT)
    stop = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
    usage = _usage(reply, reply.output_tokens)
    yield Frame(_event("message_delta", delta=stop, usage=usage), Place.CLOSING)
    yield Frame(_event("message_stop"), Place.END)


def _deltas(part: Part) -> Iterator[tuple[Json, int]]:
    match part:
        case Reasoning():
            for piece in part.pieces:
                yield {"type": "thinking_delta", "thinking": piece}, 1
            yield {"type": "signature_delta", "signature": _SIGNATURE}, 0
        case Text():
            for piece in part.pieces:
                yield {"type": "text_delta", "text": piece}, 1
        case ToolCall():
            yield {"type": "input_json_delta", "partial_json": ""}, 0
            if part.arguments == "{}":  # without arguments nothing follows
                return
            for piece in part.pieces:
                yield {"type": "input_json_delta", "partial_json": piece}, 1


_SIGNATURE = "c2ltdWxhdGVkIHNpZ25hdHVyZQ=="


def _opened(reply: Reply, part: Part) -> Json:
    match part:
        case Reasoning():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case Text():
            return {"type": "text", "text": ""}
        case ToolCall():
            return _tool_use(reply, part, {})


def _block(reply: Reply, part: Part) -> Json:
    match part:
        case Reasoning():
            thoughts = "".join(part.pieces)
            return {"type": "thinking", "thinking": thoughts, "signature": _SIGNATURE}
        case Text():
            return {"type": "text", "text": "".join(part.pieces)}
        case ToolCall():
            return _tool_use(reply, part, _arguments(part))


def _tool_use(reply: Reply, call: ToolCall, arguments: object) -> Json:
    identity = f"toolu_{reply.identity[:22]}{call.number:02d}"
    return {"type": "tool_use", "id": identity, "name": call.name, "input": arguments}


def _arguments(call: ToolCall) -> object:
    try:
        return msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:  # the allowed output ended within them
        return {}


def _message(
    request: Request, reply: Reply, content: list[Json], stop: str | None, usage: Json
) -> Json:
    return {
        "id": f"msg_{reply.identity}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def _usage(reply: Reply, output: int) -> Json:
    sizes = reply.sizes
    return {
        "input_tokens": sizes.input - sizes.cache_read - sizes.cache_write,
        "cache_creation_input_tokens": sizes.cache_write,
        "cache_read_input_tokens": sizes.cache_read,
        "output_tokens": output,
        "service_tier": "standard",
    }


def _stop_reason(reply: Reply) -> str:
    if reply.cut_short:
        return "max_tokens"
    return "tool_use" if reply.answer.calls else "end_turn"


def _event(name: str, **fields: object) -> bytes:
    return sse.event({"type": name, **fields}, name)


def keepalive() -> bytes:
    """A ping."""
    return _event("ping")


def broken() -> bytes:
    """An event whose payload is cut off."""
    return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n'


def stream_error(problem: Problem) -> bytes:
    """An `error` event."""
    _, kind, message = _describe(problem)
    return _event("error", error={"type": kind, "message": message})


def error(problem: Problem) -> ErrorAnswer:
    """The status and body of an error."""
    status, kind, message = _describe(problem)
    inside: Json = {"type": kind, "message": message}
    headers: dict[str, str] = {}
    if problem.kind is Kind.QUOTA:
        inside["details"] = {"error_code": "enforced_spend_limit_reached"}
    if isinstance(problem.refused, Refused) and problem.refused.too_fast:
        inside["details"] = {"error_code": "ramp_limit_exceeded"}
    if problem.kind in {Kind.OVERLOADED, Kind.SERVER}:
        headers["x-should-retry"] = "true"
    body = encode({"type": "error", "error": inside, "request_id": "req_sim"})
    return ErrorAnswer(status=status, body=body, headers=headers)


def _describe(problem: Problem) -> tuple[int, str, str]:
    refused = problem.refused
    match problem.kind:
        case Kind.RATE_LIMIT | Kind.TOO_LARGE:
            assert isinstance(refused, Refused | TooLarge)
            if isinstance(refused, Refused) and refused.too_fast:
                text = (
                    "This request would exceed your organization's acceleration limit."
                    " Please increase your use gradually."
                )
                return 429, "rate_limit_error", text
            text = (
                "This request would exceed your organization's rate limit of"
                f" {refused.limit:,} {_METERS[refused.meter]}. Please reduce the prompt length"
                " or the maximum tokens requested, or try again later."
            )
            return 429, "rate_limit_error", text
        case Kind.QUOTA:
            text = (
                "Your organization has reached its monthly spend limit. You will regain access"
                " on 2030-01-01 at 00:00 UTC."
            )
            return 429, "rate_limit_error", text
        case Kind.CONTEXT:
            count = max(too_long(problem), _CONTEXT + 1)
            text = f"prompt is too long: {count} tokens > {_CONTEXT} maximum"
            return 400, "invalid_request_error", text
        case Kind.MODEL:
            return 404, "not_found_error", f"model: {problem.model}"
        case Kind.INVALID:
            if problem.code == "missing_required_parameter":
                return 400, "invalid_request_error", f"{problem.param}: Field required"
            return 400, "invalid_request_error", problem.message or "Invalid request"
        case _:
            return _ERRORS[problem.kind]
