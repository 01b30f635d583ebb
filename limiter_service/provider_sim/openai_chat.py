"""The OpenAI chat dialect: requests, answers and stream chunks."""

import re
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Annotated, Literal

import msgspec

from limiter_service.provider_sim.openai_errors import BadRequestError
from limiter_service.provider_sim.provider import Ask, Reply

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-5", "gpt-5-mini")

MAX_SIZE = 1_000_000
"""The most tokens that a replay header may ask for: an answer is built in memory."""

# `created` is a date, and a simulation that repeats itself has none: it counts requests.
_FIRST_CREATED = 1_700_000_000
_BYTES_PER_TOKEN = 4

_WORDS = (
    *("The", " water", " rises", " behind", " the", " gate", " until", " it", " opens", ";"),
    *(" then", " every", " channel", " takes", " its", " share", " and", " no", " more", "."),
)
_DONE = b"data: [DONE]\n\n"

Size = Annotated[int, msgspec.Meta(ge=1)]


class Message(msgspec.Struct, frozen=True):
    """One turn; its content is measured, not read."""

    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream carries besides text."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a chat completion that matter here; others are accepted and ignored."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: Size | None = None
    max_completion_tokens: Size | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(msgspec.Struct, frozen=True):
    """The assistant's turn."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class Choice(msgspec.Struct, frozen=True):
    """The only choice of a plain answer."""

    message: AnswerMessage
    finish_reason: str
    index: int = 0
    logprobs: None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A plain answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str = "fp_sim"


class FirstDelta(msgspec.Struct, frozen=True):
    """What opens a stream."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    refusal: None = None


class TextDelta(msgspec.Struct, frozen=True):
    """One token."""

    content: str


class LastDelta(msgspec.Struct, frozen=True):
    """Nothing: the finish reason stands beside it."""


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The only choice of a stream chunk."""

    index: int = 0
    delta: FirstDelta | TextDelta | LastDelta
    logprobs: None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream. `usage` is absent unless the caller asked for it."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = "fp_sim"
    choices: list[ChunkChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the model list."""

    id: str
    object: Literal["model"] = "model"
    created: int = _FIRST_CREATED
    owned_by: str = "system"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]


_decoder = msgspec.json.Decoder(ChatRequest)
_encode = msgspec.json.Encoder().encode
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")


def read_request(body: bytes) -> ChatRequest:
    """The request in `body`; anything else raises `BadRequestError`."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = "We could not parse the JSON body of your request. (HINT: This likely means you"
        raise BadRequestError(
            f"{text} aren't using your HTTP library correctly. The API expects a JSON payload.)"
        ) from error


def _invalid(problem: str) -> BadRequestError:
    place = _PLACE.search(problem)
    where = place.group(1) if place else ""
    missing = _MISSING.search(problem)
    if missing:
        param = f"{where}.{missing.group(1)}" if where else missing.group(1)
        text = f"Missing required parameter: '{param}'."
        return BadRequestError(text, param, "missing_required_parameter")
    text = problem[: place.start()] if place else problem
    value = f"'{where}'" if where else "the request body"
    return BadRequestError(f"Invalid value for {value}: {text}.", where or None, "invalid_value")


def read_size(header: str, value: str | None) -> int | None:
    """The number of tokens that a replay header asks for."""
    if value is None:
        return None
    digits = value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_SIZE))
    if not (digits and 1 <= int(value) <= MAX_SIZE):
        text = f"Invalid value for '{header}': expected tokens from 1 to {MAX_SIZE}."
        raise BadRequestError(text, header, "invalid_value")
    return int(value)


def ask_of(
    request: ChatRequest, *, input_tokens: int | None = None, output_tokens: int | None = None
) -> Ask:
    """The request in tokens; the sizes, where given, replace estimate and chance."""
    limit = request.max_completion_tokens
    return Ask(
        input_tokens=_estimate(request) if input_tokens is None else input_tokens,
        max_output=request.max_tokens if limit is None else limit,
        output_tokens=output_tokens,
    )


def _estimate(request: ChatRequest) -> int:
    size = sum(len(bytes(message.content)) for message in request.messages)
    return max(1, -(-size // _BYTES_PER_TOKEN))


def completion(request: ChatRequest, reply: Reply) -> bytes:
    """The plain answer."""
    message = AnswerMessage("".join(_text(reply)))
    return _encode(
        Completion(
            id=f"chatcmpl-{reply.identity}",
            created=_FIRST_CREATED + reply.number,
            model=request.model,
            choices=[Choice(message, _finish_reason(reply))],
            usage=_usage(reply),
        )
    )


def opening(request: ChatRequest, reply: Reply) -> bytes:
    """The event that opens a stream; it carries no text."""
    return _event(request, reply, [ChunkChoice(delta=FirstDelta())])


def deltas(request: ChatRequest, reply: Reply) -> Iterator[bytes]:
    """One event per token of output."""
    for word in _text(reply):
        yield _event(request, reply, [ChunkChoice(delta=TextDelta(word))])


def closing(request: ChatRequest, reply: Reply) -> bytes:
    """The events that end a stream: finish reason, usage if asked for, end mark."""
    finish = ChunkChoice(delta=LastDelta(), finish_reason=_finish_reason(reply))
    text = _event(request, reply, [finish])
    if request.with_usage:
        text += _event(request, reply, [], _usage(reply))
    return text + _DONE


def _event(
    request: ChatRequest, reply: Reply, choices: list[ChunkChoice], usage: Usage | None = None
) -> bytes:
    chunk = Chunk(
        id=f"chatcmpl-{reply.identity}",
        created=_FIRST_CREATED + reply.number,
        model=request.model,
        choices=choices,
        usage=usage if request.with_usage else msgspec.UNSET,
    )
    return b"data: " + _encode(chunk) + b"\n\n"


def _text(reply: Reply) -> Iterator[str]:
    return islice(cycle(_WORDS), reply.output_tokens)


def _usage(reply: Reply) -> Usage:
    total = reply.input_tokens + reply.output_tokens
    return Usage(reply.input_tokens, reply.output_tokens, total)


def _finish_reason(reply: Reply) -> str:
    return "length" if reply.cut_short else "stop"


def model_list() -> ModelList:
    """The models that the list names; requests may name any other."""
    return ModelList(data=[Model(id=name) for name in MODELS])
