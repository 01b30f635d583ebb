"""The Gemini dialect: generateContent, and streamGenerateContent in events or as one array."""

import base64
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from limiter_service.provider_sim.content import Reasoning, Text, Tool, ToolCall
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
from limiter_service.provider_sim.dialects.reading import read
from limiter_service.provider_sim.limits import Meter, Period, Refused
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import (
    BadRequestError,
    ErrorAnswer,
    Kind,
    Problem,
    too_long,
)
from limiter_service.provider_sim.provider import Reply

NAME = "gemini"
RULES = Rules.GEMINI
STREAM_TYPE = sse.MEDIA_TYPE
REQUEST_ID = "x-request-id"

ARRAY = "array"
"""The option of a stream that is one JSON array and no events."""

_SPLIT = "split-arguments"
_THOUGHTS = "thoughts"
_WINDOW = 1_048_576
_INSISTS = "gemini-3"  # models that do, by how their names begin
_SIGNATURE = base64.b64encode(b"simulated thought").decode()

_ERRORS: dict[Kind, tuple[int, str, str]] = {
    Kind.OVERLOADED: (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    Kind.SERVER: (500, "INTERNAL", "An internal error has occurred. Please retry."),
    Kind.TIMEOUT: (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    Kind.KEY: (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    Kind.PERMISSION: (403, "PERMISSION_DENIED", "The caller does not have permission"),
    Kind.ROUTE: (404, "NOT_FOUND", "Requested entity was not found."),
    Kind.METHOD: (404, "NOT_FOUND", "Requested entity was not found."),
    Kind.FILTERED: (400, "INVALID_ARGUMENT", "The prompt was blocked: PROHIBITED_CONTENT"),
}


class Content(msgspec.Struct, frozen=True):
    """One turn; its parts are measured."""

    parts: msgspec.Raw = msgspec.Raw(b"[]")
    role: str = "user"


class Declaration(msgspec.Struct, frozen=True):
    """A function on offer, under any of the names that its schema may have."""

    name: str
    parameters: Json | None = None
    parameters_json_schema: Json | None = None
    parametersJsonSchema: Json | None = None  # noqa: N815 - the provider's name

    @property
    def schema(self) -> Json:
        """The schema of its arguments."""
        return self.parameters or self.parametersJsonSchema or self.parameters_json_schema or {}


class ToolSet(msgspec.Struct, frozen=True, rename="camel"):
    """Functions on offer; tools of the provider's own are never called."""

    function_declarations: list[Declaration] = []


class FunctionCalling(msgspec.Struct, frozen=True, rename="camel"):
    """Whether functions may be called, and how their arguments stream."""

    mode: str = "AUTO"
    stream_function_call_arguments: bool = False


class ToolConfig(msgspec.Struct, frozen=True, rename="camel"):
    """How tools are used."""

    function_calling_config: FunctionCalling = FunctionCalling()


class Thinking(msgspec.Struct, frozen=True, rename="camel"):
    """Whether thoughts are shown."""

    include_thoughts: bool = False


class GenerationConfig(msgspec.Struct, frozen=True, rename="camel"):
    """How an answer is generated."""

    max_output_tokens: Size | None = None
    thinking_config: Thinking = Thinking()


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields that matter here; others are accepted and ignored."""

    contents: Annotated[list[Content], msgspec.Meta(min_length=1)]
    system_instruction: msgspec.Raw = msgspec.Raw(b"")
    tools: list[ToolSet] = []
    tool_config: ToolConfig = ToolConfig()
    generation_config: GenerationConfig = GenerationConfig()


_decoder = msgspec.json.Decoder(GenerateRequest)


def read_request(body: bytes, path: Mapping[str, str]) -> Request:
    """The request; its model, and whether it streams, stand in the path."""
    sent = read(_decoder, body)
    tools = [one for group in sent.tools for one in group.function_declarations]
    calling = sent.tool_config.function_calling_config
    result = b'"functionResponse"' in bytes(sent.contents[-1].parts)
    if path["model"].startswith(_INSISTS):
        _insist_on_signatures(sent.contents)
    measured = [content.parts for content in sent.contents]
    if bytes(sent.system_instruction):
        measured.append(sent.system_instruction)
    chosen = {
        ARRAY: path.get("alt") != "sse",
        _SPLIT: calling.stream_function_call_arguments,
        _THOUGHTS: sent.generation_config.thinking_config.include_thoughts,
    }
    return Request(
        model=path["model"],
        input_tokens=estimate(*measured, *map(msgspec.to_builtins, tools)),
        max_output=sent.generation_config.max_output_tokens,
        stream=path["verb"] == "streamGenerateContent",
        tools=[Tool(tool.name, tool.schema) for tool in tools],
        wants_call=bool(tools) and calling.mode != "NONE" and not result,
        options=frozenset(name for name, on in chosen.items() if on),
    )


def _insist_on_signatures(contents: list[Content]) -> None:
    """The first call of each turn of the model comes back under its seal."""
    for content in contents:
        if b'"functionCall"' not in bytes(content.parts):
            continue
        first = next(p for p in msgspec.json.decode(content.parts) if "functionCall" in p)
        if first.get("thoughtSignature") != _SIGNATURE:
            text = "Function call is missing a thought_signature in functionCall parts."
            raise BadRequestError(text)


def plain(request: Request, reply: Reply) -> bytes:
    """The whole answer."""
    parts = [part for group in _parts(request, reply, split=False) for part, _ in group]
    return encode(_chunk(request, reply, parts, reply.output_tokens, _finish(reply)))


def frames(request: Request, reply: Reply) -> Iterator[Frame]:
    """A whole answer for each piece, with the usage so far; the last has a finish reason."""
    events = ARRAY not in request.options
    sent = 0
    split = _SPLIT in request.options
    first = True

    def written(chunk: Json) -> bytes:
        nonlocal first
        lead, first = (b"[" if first else b",\r\n"), False
        return sse.event(chunk) if events else lead + encode(chunk)

    for group in _parts(request, reply, split=split):
        for part, tokens in group:
            sent += tokens
            data = written(_chunk(request, reply, [part], sent)) if part else b""
            yield Frame(data, Place.CONTENT, tokens)
    last = _chunk(request, reply, [{"text": ""}], reply.output_tokens, _finish(reply))
    yield Frame(written(last), Place.CLOSING)
    if not events:
        yield Frame(b"]", Place.END)


def _parts(request: Request, reply: Reply, *, split: bool) -> Iterator[list[tuple[Json, int]]]:
    """The parts of an answer and the output of each; an empty one is a hidden thought."""
    for part in reply.answer.parts:
        match part:
            case Reasoning():
                shown = _THOUGHTS in request.options
                yield [({"text": p, "thought": True} if shown else {}, 1) for p in part.pieces]
            case Text():
                yield [({"text": piece}, 1) for piece in part.pieces]
            case ToolCall() if split:
                yield _split_call(part)
            case ToolCall():
                call = {"name": part.name, "args": _arguments(part)}
                whole = {"functionCall": call, "thoughtSignature": _SIGNATURE}
                yield [(whole, len(part.pieces) + 1)]


def _split_call(call: ToolCall) -> list[tuple[Json, int]]:
    """A call whose arguments come one after the other, and strings in halves."""
    begun = {"name": call.name, "willContinue": True}
    parts = [begun]
    for path, value in _leaves(_arguments(call), "$"):
        match value:
            case bool():
                pieces: list[Json] = [{"boolValue": value}]
            case int() | float():
                pieces = [{"numberValue": value}]
            case str():
                half = len(value) // 2
                pieces = [
                    {"stringValue": value[:half], "willContinue": True},
                    {"stringValue": value[half:]},
                ]
            case _:
                pieces = [{"nullValue": "NULL_VALUE"}]
        parts += [
            {"partialArgs": [{"jsonPath": path, **piece}], "willContinue": True} for piece in pieces
        ]
    parts.append({})
    spread = [0] * len(parts)
    for token in range(len(call.pieces) + 1):
        spread[token % len(parts)] += 1
    return [({"functionCall": part}, tokens) for part, tokens in zip(parts, spread, strict=True)]


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


def _arguments(call: ToolCall) -> object:
    try:
        return msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:  # the allowed output ended within them
        return {}


def _chunk(
    request: Request, reply: Reply, parts: list[Json], output: int, finish: str | None = None
) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    thoughts = min(reply.answer.reasoning_tokens, output)
    usage: Json = {
        "promptTokenCount": reply.input_tokens,
        "candidatesTokenCount": output - thoughts,
        "totalTokenCount": reply.input_tokens + output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": reply.input_tokens}],
    }
    if reply.answer.reasoning_tokens:
        usage["thoughtsTokenCount"] = thoughts
    if reply.sizes.cache_read:
        usage["cachedContentTokenCount"] = reply.sizes.cache_read
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": request.model,
        "responseId": reply.identity,
    }


def _finish(reply: Reply) -> str:
    return "MAX_TOKENS" if reply.cut_short else "STOP"


def keepalive() -> bytes:
    """The provider sends none; a comment is what proxies before it add."""
    return b": keep-alive\n\n"


def broken() -> bytes:
    """An event whose payload is cut off."""
    return b'data: {"candidates":[{"content":{"parts":[{"text":"\n\n'


def stream_error(problem: Problem) -> bytes:
    """An event with the body of the error."""
    return b"data: " + error(problem).body + b"\n\n"


def error(problem: Problem) -> ErrorAnswer:
    """The status and body of an error."""
    status, name, message = _describe(problem)
    inside: Json = {"code": status, "message": message, "status": name}
    if details := list(_details(problem)):
        inside["details"] = details
    return ErrorAnswer(status=status, body=encode({"error": inside}))


def _describe(problem: Problem) -> tuple[int, str, str]:
    match problem.kind:
        case Kind.RATE_LIMIT | Kind.TOO_LARGE:
            wait = problem.retry_after
            hint = "" if wait is None else f" Please retry in {wait:.9g}s."
            text = f"You exceeded your current quota, please check your plan.{hint}"
            return 429, "RESOURCE_EXHAUSTED", text
        case Kind.QUOTA:
            text = "You exceeded your current quota: billing for this project has a spend limit."
            return 429, "RESOURCE_EXHAUSTED", text
        case Kind.CONTEXT:
            count = max(too_long(problem), _WINDOW + 1)
            text = (
                f"The input token count ({count}) exceeds the maximum number of tokens allowed"
                f" ({_WINDOW})."
            )
            return 400, "INVALID_ARGUMENT", text
        case Kind.MODEL:
            return 404, "NOT_FOUND", f"models/{problem.model} is not found for API version v1beta"
        case Kind.INVALID:
            return 400, "INVALID_ARGUMENT", problem.message or "Invalid request"
        case _:
            return _ERRORS[problem.kind]


def _details(problem: Problem) -> Iterator[Json]:
    family = "type.googleapis.com/google.rpc"
    refused = problem.refused
    limited = problem.kind in {Kind.RATE_LIMIT, Kind.TOO_LARGE}
    if limited and refused is not None:
        daily = isinstance(refused, Refused) and refused.period is Period.DAY
        span = "PerDay" if daily else "PerMinute"
        tokens = refused.meter is not Meter.REQUESTS
        counted = "GenerateContentInputTokens" if tokens else "GenerateRequests"
        metric = "input_token_count" if tokens else "requests"
        violation = {
            "quotaMetric": f"generativelanguage.googleapis.com/generate_content_{metric}",
            "quotaId": f"{counted}{span}PerProjectPerModel",
            "quotaDimensions": {"location": "global", "model": problem.model},
            "quotaValue": str(refused.limit),
        }
        yield {"@type": f"{family}.QuotaFailure", "violations": [violation]}
    if problem.retry_after is not None:
        yield {"@type": f"{family}.RetryInfo", "retryDelay": f"{problem.retry_after:.9g}s"}
    if problem.kind is Kind.KEY:
        domain = "googleapis.com"
        yield {"@type": f"{family}.ErrorInfo", "reason": "API_KEY_INVALID", "domain": domain}
