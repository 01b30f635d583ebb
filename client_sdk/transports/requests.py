"""A provider SDK's HTTP request, read for what a reservation needs. Pure; never raises.

The work is bounded: a body is decoded once, and of long ones only samples are weighed.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from client_sdk.estimate import Estimate, Estimator, Ratio, family_of
from client_sdk.transports.routes import Place, place_of
from client_sdk.transports.sampling import sampling
from limiter_wire import Provenance, Usage
from limiter_wire.providers import by_host, detect, known_provider, profile

Ratios = dict[tuple[str, str], Ratio]
"""What an Estimator has learned, by model and route."""

LARGEST_BODY = 32 << 20
"""Bytes of a body that is still decoded; a larger one passes unread."""

_MOST_TOKENS = 1_000_000_000
_MOST_ATTEMPTS = 1000


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a model.

    `provider` is a profile's name, None where nothing tells. `max_output_tokens` is None where
    the request sets none. `estimate` is what `input_tokens` was made from, to learn from the
    provider's count.
    """

    provider: str | None
    model: str
    dialect: str
    streaming: bool
    input_tokens: int
    max_output_tokens: int | None
    attempt: int
    estimate: Estimate | None = None


def read_call(
    method: str, url: str, headers: Mapping[str, str], body: bytes, ratios: Ratios
) -> Call | None:
    """What the request asks of which model; None when it is none that uses a budget.

    *headers* are by name in lower case.
    """
    try:
        place = place_of(method, urlsplit(url).path)
        if place is None or len(body) > LARGEST_BODY:
            return None
        fields = msgspec.json.decode(body)
        if not isinstance(fields, dict):
            return None
        return _call(place, url, headers, fields, len(body), ratios)
    except Exception:  # noqa: BLE001  # whatever a body holds, reading it breaks no request
        return None


def calls_a_model(method: str, url: str) -> bool:
    """Whether the request is worth reading: without its body."""
    try:
        return place_of(method, urlsplit(url).path) is not None
    except ValueError:
        return False


def attempt_of(headers: Mapping[str, str], sent_before: int = 0) -> int:
    """The number of this attempt: by the SDK's own count, or by how often the request was sent."""
    said = headers.get("x-stainless-retry-count", "")
    retries = int(said) if said.isascii() and said.isdigit() and len(said) <= 4 else 0  # noqa: PLR2004  # digits
    return min(max(retries, sent_before) + 1, _MOST_ATTEMPTS)


def learned(ratios: Ratios, call: Call, usage: Usage) -> None:
    """Take the provider's own count of the input into *ratios*."""
    if call.estimate is not None and usage.provenance is Provenance.FINAL and usage.input_tokens:
        estimator = Estimator()
        estimator.ratios = ratios
        estimator.learn(call.estimate, usage.input_tokens)


def _call(
    place: Place,
    url: str,
    headers: Mapping[str, str],
    fields: dict[str, Any],
    size: int,
    ratios: Ratios,
) -> Call | None:
    route = place.route
    model = place.model or fields.get("model")
    if not isinstance(model, str) or not model:
        return None
    model = model.removeprefix("models/") if route.dialect == "gemini" else model
    provider = _provider(url, headers, place, model)
    estimate = _input(fields, size, model, ratios)
    if route.kind == "input":
        most: int | None = 0
        streaming = False
    else:
        most = _most_output(fields)
        # Ollama streams unless it is told not to.
        by_default = route.dialect == "ollama"
        streaming = route.streams or fields.get("stream", by_default) is True
    return Call(
        provider=provider,
        model=model,
        dialect=_dialect(provider, route.dialect),
        streaming=streaming,
        input_tokens=min(max(1, estimate.tokens), _MOST_TOKENS),
        max_output_tokens=most,
        attempt=attempt_of(headers),
        estimate=estimate,
    )


def _provider(url: str, headers: Mapping[str, str], place: Place, model: str) -> str | None:
    """By the host; behind a host of one's own by the form of the API, else by the model's name."""
    found = by_host(url)
    if found is not None:
        return found
    if place.route.provider is not None:
        return place.route.provider
    guess = detect(headers=headers, model=model)
    return None if guess is None else guess.provider


def _dialect(provider: str | None, dialect: str) -> str:
    """The dialect of the route, refined by who speaks it."""
    if dialect == "openai-chat" and provider is not None and known_provider(provider):
        spoken = profile(provider).stream
        return spoken if spoken in {"mistral", "openai-chat"} else dialect
    return dialect


# How much output a request allows.


def _most_output(fields: Mapping[str, Any]) -> int | None:
    generation = _object(fields.get("generationConfig") or fields.get("generation_config"))
    inference = _object(fields.get("inferenceConfig"))
    options = _object(fields.get("options"))
    for holder, names in (
        (fields, ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxTokens")),
        (generation, ("maxOutputTokens", "max_output_tokens")),
        (inference, ("maxTokens",)),
        (options, ("num_predict",)),
    ):
        for name in names:
            most = holder.get(name)
            if isinstance(most, int) and not isinstance(most, bool) and most > 0:
                answers = _count(fields.get("n")) or _count(generation.get("candidateCount")) or 1
                return min(most * answers, _MOST_TOKENS)
    return None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


# How much input a request brings.


def _input(fields: Mapping[str, Any], size: int, model: str, ratios: Ratios) -> Estimate:
    system = fields.get("system") or fields.get("instructions") or fields.get("preamble")
    system = system or fields.get("systemInstruction") or fields.get("system_instruction")
    estimator = Estimator({family_of(model): sampling(size, family_of(model))})
    estimator.ratios = ratios
    return estimator.request(
        _messages(fields), model, tools=_tools(fields), system=system, route="transport"
    )


_TEXTS = ("input", "prompt", "text", "texts", "content", "documents", "query", "inputs")


def _messages(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Whatever the request says, as messages."""
    for name in ("messages", "contents", "chat_history"):
        found = fields.get(name)
        if isinstance(found, list):
            said = [part for part in found if isinstance(part, Mapping)]
            said += [{"content": part} for part in found if isinstance(part, str)]
            last = fields.get("message")
            return [*said, {"content": last}] if isinstance(last, str) else said
        if isinstance(found, str):
            return [{"content": found}]
    if isinstance(fields.get("message"), str):
        return [{"content": fields["message"]}]
    return [part for name in _TEXTS for part in _as_messages(fields.get(name))]


def _as_messages(value: object) -> list[Mapping[str, Any]]:
    """A text, tokens, messages, or a list of these."""
    if isinstance(value, str):
        return [{"content": value}]
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, list):
        if value and all(isinstance(part, int) for part in value[:8]):
            return [{"content": "1 " * min(len(value), _MOST_TOKENS)}]  # counted already
        return [message for part in value for message in _as_messages(part)]
    return []


def _tools(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    config = _object(fields.get("toolConfig"))
    offered = fields.get("tools") or fields.get("functions") or config.get("tools")
    return (
        [tool for tool in offered if isinstance(tool, Mapping)] if isinstance(offered, list) else []
    )
