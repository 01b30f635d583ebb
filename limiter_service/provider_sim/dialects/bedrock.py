"""The dialect of Bedrock's runtime: converse, and converse-stream in AWS event streams."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from limiter_service.provider_sim.content import Part, Reasoning, Text, Tool, ToolCall
from limiter_service.provider_sim.dialects import eventstream
from limiter_service.provider_sim.dialects.base import (
    Frame,
    Json,
    Place,
    Request,
    Size,
    encode,
    estimate,
)
from limiter_service.provider_sim.dialects.reading import read
from limiter_service.provider_sim.limits import Meter, Period, Refused
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import ErrorAnswer, Kind, Problem
from limiter_service.provider_sim.provider import Reply

NAME = "bedrock"
RULES = Rules.BEDROCK
STREAM_TYPE = eventstream.MEDIA_TYPE
REQUEST_ID = "x-amzn-requestid"

_ERRORS: dict[Kind, tuple[int, str, str]] = {
    Kind.QUOTA: (400, "ServiceQuotaExceededException", "Your account has reached its quota."),
    Kind.OVERLOADED: (503, "ServiceUnavailableException", "The service is unavailable."),
    Kind.SERVER: (500, "InternalServerException", "The system encountered an error."),
    Kind.TIMEOUT: (408, "ModelTimeoutException", "The model took too long to answer."),
    Kind.KEY: (403, "UnrecognizedClientException", "The security token is invalid."),
    Kind.PERMISSION: (
        403,
        "AccessDeniedException",
        "You don't have access to the model with the specified model ID.",
    ),
    Kind.CONTEXT: (400, "ValidationException", "Input is too long for requested model."),
    Kind.ROUTE: (404, "UnknownOperationException", "Not found."),
    Kind.METHOD: (405, "UnknownOperationException", "Method not allowed."),
    Kind.FILTERED: (400, "ValidationException", "The prompt was blocked by a guardrail."),
    Kind.TOO_LARGE: (
        429,
        "ThrottlingException",
        "Too many tokens, please wait before trying again.",
    ),
}


class Message(msgspec.Struct, frozen=True):
    """One turn; its content is measured."""

    role: str
    content: msgspec.Raw


class InputSchema(msgspec.Struct, frozen=True):
    """The schema of a tool's arguments."""

    json: Json = {}


class ToolSpec(msgspec.Struct, frozen=True, rename="camel"):
    """A function on offer."""

    name: str
    input_schema: InputSchema = InputSchema()


class OfferedTool(msgspec.Struct, frozen=True, rename="camel"):
    """A tool on offer; kinds that are no functions are never called."""

    tool_spec: ToolSpec | None = None


class ToolConfig(msgspec.Struct, frozen=True):
    """The tools on offer."""

    tools: list[OfferedTool] = []


class Inference(msgspec.Struct, frozen=True, rename="camel"):
    """How an answer is generated."""

    max_tokens: Size | None = None


class ConverseRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields that matter here; others are accepted and ignored."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    system: msgspec.Raw = msgspec.Raw(b"")
    inference_config: Inference = Inference()
    tool_config: ToolConfig = ToolConfig()


_decoder = msgspec.json.Decoder(ConverseRequest)


def read_request(body: bytes, path: Mapping[str, str]) -> Request:
    """The request; its model, and whether it streams, stand in the path."""
    sent = read(_decoder, body)
    tools = [tool.tool_spec for tool in sent.tool_config.tools if tool.tool_spec]
    measured = [message.content for message in sent.messages]
    if bytes(sent.system):
        measured.append(sent.system)
    return Request(
        model=path["model"],
        input_tokens=estimate(*measured, *map(msgspec.to_builtins, tools)),
        max_output=sent.inference_config.max_tokens,
        stream=path["verb"] == "converse-stream",
        tools=[Tool(tool.name, tool.input_schema.json) for tool in tools],
        wants_call=bool(tools) and b'"toolResult"' not in bytes(sent.messages[-1].content),
    )


def plain(request: Request, reply: Reply) -> bytes:  # noqa: ARG001 - as the others
    """The whole answer."""
    content = [_block(reply, part) for part in reply.answer.parts]
    return encode(
        {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _stop_reason(reply),
            "usage": _usage(reply),
            "metrics": {"latencyMs": round(reply.duration * 1000)},
        }
    )


def frames(request: Request, reply: Reply) -> Iterator[Frame]:  # noqa: ARG001 - as the others
    """The events of a message; usage follows its end."""
    yield Frame(_event("messageStart", role="assistant"), Place.OPENING)
    for index, part in enumerate(reply.answer.parts):
        if isinstance(part, ToolCall):
            start = {"toolUse": {"toolUseId": _identity(reply, part), "name": part.name}}
            begun = _event("contentBlockStart", contentBlockIndex=index, start=start)
            yield Frame(begun, Place.CONTENT, 1)
        for delta, tokens in _deltas(part):
            data = _event("contentBlockDelta", contentBlockIndex=index, delta=delta)
            yield Frame(data, Place.CONTENT, tokens)
        yield Frame(_event("contentBlockStop", contentBlockIndex=index), Place.CONTENT)
    yield Frame(_event("messageStop", stopReason=_stop_reason(reply)), Place.CLOSING)
    metrics = {"latencyMs": round(reply.duration * 1000)}
    yield Frame(_event("metadata", usage=_usage(reply), metrics=metrics), Place.END)


def _deltas(part: Part) -> Iterator[tuple[Json, int]]:
    match part:
        case Reasoning():
            for piece in part.pieces:
                yield {"reasoningContent": {"text": piece}}, 1
            yield {"reasoningContent": {"signature": _SIGNATURE}}, 0
        case Text():
            for piece in part.pieces:
                yield {"text": piece}, 1
        case ToolCall():
            for piece in part.pieces:
                yield {"toolUse": {"input": piece}}, 1


_SIGNATURE = "c2ltdWxhdGVk"


def _block(reply: Reply, part: Part) -> Json:
    match part:
        case Reasoning():
            text = {"text": "".join(part.pieces), "signature": _SIGNATURE}
            return {"reasoningContent": {"reasoningText": text}}
        case Text():
            return {"text": "".join(part.pieces)}
        case ToolCall():
            use = {"toolUseId": _identity(reply, part), "name": part.name}
            return {"toolUse": {**use, "input": _arguments(part)}}


def _identity(reply: Reply, call: ToolCall) -> str:
    return f"tooluse_{reply.identity[:20]}{call.number:02d}"


def _arguments(call: ToolCall) -> object:
    try:
        return msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:  # the allowed output ended within them
        return {}


def _usage(reply: Reply) -> Json:
    sizes = reply.sizes
    return {
        "inputTokens": sizes.input - sizes.cache_read - sizes.cache_write,
        "outputTokens": reply.output_tokens,
        "totalTokens": sizes.input + reply.output_tokens,
        "cacheReadInputTokens": sizes.cache_read,
        "cacheWriteInputTokens": sizes.cache_write,
    }


def _stop_reason(reply: Reply) -> str:
    if reply.cut_short:
        return "max_tokens"
    return "tool_use" if reply.answer.calls else "end_turn"


def _event(kind: str, **fields: object) -> bytes:
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return eventstream.message(headers, encode(fields))


def keepalive() -> bytes:
    """The provider sends none; an event of an unknown type is the nearest thing."""
    return _event("keepAlive")


def broken() -> bytes:
    """A message whose checksum is wrong."""
    whole = _event("contentBlockDelta", contentBlockIndex=0, delta={"text": "broken"})
    return whole[:-1] + bytes([whole[-1] ^ 0xFF])


def stream_error(problem: Problem) -> bytes:
    """An exception frame."""
    _, name, text = _describe(problem)
    headers = {
        ":exception-type": name[0].lower() + name[1:],
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return eventstream.message(headers, encode({"message": text}))


def error(problem: Problem) -> ErrorAnswer:
    """The status and body of an error; its type stands in a header."""
    status, name, text = _describe(problem)
    headers = {"x-amzn-errortype": name}
    return ErrorAnswer(status=status, body=encode({"message": text}), headers=headers)


def _describe(problem: Problem) -> tuple[int, str, str]:
    match problem.kind:
        case Kind.RATE_LIMIT:
            refused = problem.refused
            assert isinstance(refused, Refused)
            counted = "requests" if refused.meter is Meter.REQUESTS else "tokens"
            span = " per day" if refused.period is Period.DAY else ""
            text = f"Too many {counted}{span}, please wait before trying again."
            return 429, "ThrottlingException", text
        case Kind.MODEL:
            text = f"Could not resolve the foundation model from {problem.model}."
            return 404, "ResourceNotFoundException", text
        case Kind.INVALID:
            return 400, "ValidationException", problem.message
        case _:
            return _ERRORS[problem.kind]
