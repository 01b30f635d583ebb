"""The OpenAI responses dialect: typed events with sequence numbers.

What a response streams can be read again: `GET /v1/responses/{id}?stream=true` with
`starting_after` sends the events that follow a sequence number.
"""

from collections.abc import Iterator, Mapping

import msgspec

from limiter_service.provider_sim.content import Part, Reasoning, Text, ToolCall
from limiter_service.provider_sim.content import Tool as Offered
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
from limiter_service.provider_sim.dialects.reading import read
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import ErrorAnswer, Problem
from limiter_service.provider_sim.provider import Reply

NAME = "openai-responses"
RULES = Rules.PLAIN
STREAM_TYPE = sse.MEDIA_TYPE
REQUEST_ID = "x-request-id"

_RESULTS = frozenset({"function_call_output"})


class Tool(msgspec.Struct, frozen=True):
    """A tool on offer; only functions are called."""

    type: str = "function"
    name: str | None = None
    parameters: Json | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that matter here; others are accepted and ignored."""

    model: str
    input: msgspec.Raw = msgspec.Raw(b"[]")
    instructions: str | None = None
    max_output_tokens: Size | None = None
    stream: bool | None = False
    tools: list[Tool] | None = None
    tool_choice: object = "auto"


_decoder = msgspec.json.Decoder(ResponsesRequest)


def read_request(body: bytes, path: Mapping[str, str]) -> Request:  # noqa: ARG001
    """The request in `body`; anything else raises `BadRequestError`."""
    sent = read(_decoder, body)
    tools = [tool for tool in sent.tools or () if tool.type == "function" and tool.name]
    items = msgspec.json.decode(sent.input)
    last = items[-1] if isinstance(items, list) and items else None
    result = isinstance(last, dict) and last.get("type") in _RESULTS
    prompt = [sent.instructions] if sent.instructions else []
    return Request(
        model=sent.model,
        input_tokens=estimate(sent.input, *prompt, *map(msgspec.to_builtins, tools)),
        max_output=sent.max_output_tokens,
        stream=bool(sent.stream),
        tools=[Offered(tool.name or "", tool.parameters or {}) for tool in tools],
        wants_call=bool(tools) and sent.tool_choice != "none" and not result,
    )


def response_id(reply: Reply) -> str:
    """The id of a response."""
    return f"resp_{reply.identity}"


def plain(request: Request, reply: Reply) -> bytes:
    """The response as it is in the end."""
    return encode(_response(request, reply, _status(reply), finished=True))


def frames(request: Request, reply: Reply) -> Iterator[Frame]:
    """Every event, numbered from 0."""
    for number, (name, fields, place, tokens) in enumerate(_events(request, reply)):
        if not name:
            yield Frame(b"", place, tokens)
            continue
        payload = {"type": name, **fields, "sequence_number": number}
        yield Frame(sse.event(payload, name), place, tokens)


_Event = tuple[str, Json, Place, int]


def _events(request: Request, reply: Reply) -> Iterator[_Event]:
    begun = {"response": _response(request, reply, "in_progress", finished=False)}
    yield "response.created", begun, Place.OPENING, 0
    yield "response.in_progress", begun, Place.OPENING, 0
    for index, part in enumerate(reply.answer.parts):
        yield from _part_events(reply, index, part)
    status = _status(reply)
    final = {"response": _response(request, reply, status, finished=True)}
    yield f"response.{status}", final, Place.END, 0


def _part_events(reply: Reply, index: int, part: Part) -> Iterator[_Event]:
    whole = _item(reply, index, part)
    place = {"item_id": whole["id"], "output_index": index}
    yield "response.output_item.added", _at(index, _opened(whole)), Place.CONTENT, 0
    match part:
        case Reasoning():
            yield from _deltas(
                part.pieces,
                {**place, "summary_index": 0},
                "response.reasoning_summary_part",
                "response.reasoning_summary_text",
                {"type": "summary_text"},
            )
        case Text():
            yield from _deltas(
                part.pieces,
                {**place, "content_index": 0},
                "response.content_part",
                "response.output_text",
                {"type": "output_text", "annotations": [], "logprobs": []},
            )
        case ToolCall():
            name = "response.function_call_arguments"
            for number, piece in enumerate(part.pieces):
                tokens = 2 if number == 0 else 1  # the first stands for the name as well
                yield f"{name}.delta", {**place, "delta": piece}, Place.CONTENT, tokens
            yield f"{name}.done", {**place, "arguments": part.arguments}, Place.CONTENT, 0
    yield "response.output_item.done", _at(index, whole), Place.CONTENT, 0


def _deltas(pieces: object, place: Json, outer: str, inner: str, part: Json) -> Iterator[_Event]:
    assert isinstance(pieces, tuple)
    text = "".join(pieces)
    yield f"{outer}.added", {**place, "part": {**part, "text": ""}}, Place.CONTENT, 0
    for piece in pieces:
        yield f"{inner}.delta", {**place, "delta": piece}, Place.CONTENT, 1
    yield f"{inner}.done", {**place, "text": text}, Place.CONTENT, 0
    yield f"{outer}.done", {**place, "part": {**part, "text": text}}, Place.CONTENT, 0


def _at(index: int, item: Json) -> Json:
    return {"output_index": index, "item": item}


def _opened(item: Json) -> Json:
    """An item as it is before anything came."""
    empty = {"content": [], "summary": [], "arguments": ""}
    begun = {name: empty.get(name, value) for name, value in item.items()}
    return {**begun, "status": "in_progress"}


def _item(reply: Reply, index: int, part: Part) -> Json:
    identity = f"{reply.identity}{index:02d}"
    status = "completed"
    match part:
        case Reasoning():
            summary = [{"type": "summary_text", "text": "".join(part.pieces)}]
            return {"id": f"rs_{identity}", "type": "reasoning", "summary": summary}
        case Text():
            text = "".join(part.pieces)
            content = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
            return {
                "id": f"msg_{identity}",
                "type": "message",
                "status": status,
                "content": [content],
                "role": "assistant",
            }
        case ToolCall():
            return {
                "id": f"fc_{identity}",
                "type": "function_call",
                "status": status,
                "arguments": part.arguments,
                "call_id": f"call_{reply.identity[:22]}{part.number:02d}",
                "name": part.name,
            }


def _status(reply: Reply) -> str:
    return "incomplete" if reply.cut_short else "completed"


def _response(request: Request, reply: Reply, status: str, *, finished: bool) -> Json:
    parts = enumerate(reply.answer.parts) if finished else ()
    cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": response_id(reply),
        "object": "response",
        "created_at": FIRST_CREATED + reply.number,
        "status": status,
        "error": None,
        "incomplete_details": cut,
        "instructions": None,
        "max_output_tokens": request.max_output,
        "model": request.model,
        "output": [_item(reply, index, part) for index, part in parts],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(reply) if finished else None,
        "metadata": {},
    }


def _usage(reply: Reply) -> Json:
    return {
        "input_tokens": reply.input_tokens,
        "input_tokens_details": {"cached_tokens": reply.sizes.cache_read},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"reasoning_tokens": reply.answer.reasoning_tokens},
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }


def keepalive() -> bytes:
    """A comment."""
    return b": keep-alive\n\n"


def broken() -> bytes:
    """An event whose payload is cut off."""
    return b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",\n\n'


def stream_error(problem: Problem) -> bytes:
    """An `error` event, and the response that has failed."""
    _, inside = openai_errors.describe(problem)
    code = inside.code or inside.type
    flat: Json = {
        "type": "error",
        "code": code,
        "message": inside.message,
        "param": inside.param,
        "sequence_number": 9_999,
    }
    failed: Json = {
        "type": "response.failed",
        "sequence_number": 10_000,
        "response": {
            "id": "resp_failed",
            "object": "response",
            "status": "failed",
            "error": {"code": code, "message": inside.message},
            "output": [],
            "usage": None,
        },
    }
    return sse.event(flat, "error") + sse.event(failed, "response.failed")


def error(problem: Problem) -> ErrorAnswer:
    """The status and body of an error."""
    return openai_errors.error(problem)
