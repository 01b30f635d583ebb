"""One request for one target, and its whole answer as a stream. Pure."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import msgspec

from client_sdk.llm import anthropic, gemini, ollama, openai_chat, openai_responses
from client_sdk.llm.endpoints import Endpoint, Target
from client_sdk.llm.options import CallOptions, Message, Tool

_SHAPES: dict[str, ModuleType] = {
    "chat": openai_chat,
    "responses": openai_responses,
    "anthropic": anthropic,
    "gemini": gemini,
    "ollama": ollama,
}


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What goes over the wire."""

    method: str = "POST"
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


def request(
    target: Target,
    messages: Sequence[Message],
    tools: Sequence[Tool] | None,
    options: CallOptions,
    *,
    stream: bool,
) -> Sent:
    """The request that asks *target* to answer *messages*."""
    shape = _SHAPES[target.endpoint.api]
    body = shape.body(
        target.endpoint, target.model, messages, tools, options.generation, stream=stream
    )
    path = gemini.path(target.model, stream=stream) if shape is gemini else shape.PATH
    return Sent(
        url=target.base_url + path,
        headers=_headers(target, options, stream=stream),
        body=msgspec.json.encode(body),
    )


def resumption(target: Target, response_id: str, position: int, options: CallOptions) -> Sent:
    """The request for what follows *position* in a response that the provider keeps."""
    path = f"{openai_responses.PATH}/{response_id}?stream=true&starting_after={position}"
    headers = _headers(target, options, stream=True)
    return Sent(method="GET", url=target.base_url + path, headers=headers)


def _headers(target: Target, options: CallOptions, *, stream: bool) -> dict[str, str]:
    accept = "text/event-stream" if stream and target.endpoint.api != "ollama" else "*/*"
    return {
        "content-type": "application/json",
        "accept": accept,
        **target.headers,
        **{name.lower(): value for name, value in options.headers.items()},
    }


def as_stream(endpoint: Endpoint, body: bytes) -> bytes:
    """A whole answer as the bytes of a stream that says the same, so that one reader is enough;
    what is no answer stays as it is.
    """
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return body
    if not isinstance(answer, dict) or answer.get("error"):
        return body
    events: list[dict[str, Any]] | None = _SHAPES[endpoint.api].as_stream(answer)
    if events is None:
        return body
    if endpoint.api == "ollama":
        return b"".join(map(ollama.frame, events))
    end = b"data: [DONE]\n\n" if endpoint.api == "chat" else b""
    return b"".join(map(openai_chat.frame, events)) + end
