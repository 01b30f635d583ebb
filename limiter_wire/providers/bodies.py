"""The error in a body, in whatever shape a provider or a proxy sends it. Never raises.

Shapes: an object under `error`, a text there (Ollama), a bare object (Cerebras, Mistral,
Cohere), a list of objects (Gemini), botocore's `Error`, an event of a stream, one named
exception (Bedrock's frames), XML, a page of a proxy.
"""

from collections.abc import Iterator, Mapping

import msgspec

from limiter_wire.providers.rules import compiled

Body = bytes | bytearray | str | Mapping[str, object] | list[object] | None

_LONGEST = 200_000  # a body is for people beyond that, and patterns would take their time
_LONGEST_MESSAGE = 5_000  # some patterns take the square of it
_STATUSES = range(400, 600)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it was said.

    `codes` joins every word that classifies: code, type, status, reason, quota ids, finish
    reasons. `code` is the most telling one, `status` a number in the body that overrides
    that of HTTP. `delays` are texts that may name a time.
    """

    codes: str = ""
    code: str = ""
    message: str = ""
    status: int | None = None
    request_id: str | None = None
    delay: str | None = None
    retryable: bool | None = None
    page: bool = False
    headers: Mapping[str, str] = {}
    """Headers of the refusal that stand in the body, in lower case (OpenRouter)."""
    fields: Mapping[str, object] = {}


def read(body: Body, headers: Mapping[str, str]) -> Report:
    """What *body* says; *headers* (in lower case) name Bedrock's exceptions and request ids."""
    request_id = next((headers[name] for name in _REQUEST_IDS if name in headers), None)
    named = [headers[name].partition(":")[0] for name in _EXCEPTION_NAMES if name in headers]
    payload = decoded(body)
    if isinstance(payload, str):
        return _text(payload, named, request_id)
    words = list(dict.fromkeys([*named, *_words(payload)]))
    said_id = _first(payload, ("request_id", "requestId", "RequestId"))
    return Report(
        codes=" ".join(words),
        code=next((word for word in words if word not in _SAY_NOTHING), ""),
        message=_message(payload)[:_LONGEST_MESSAGE],
        status=_status(payload),
        request_id=request_id or said_id,
        delay=_delay(payload),
        retryable=_retryable(payload),
        headers=_headers(payload),
        fields=_object(payload.get("error")) or payload,
    )


_REQUEST_IDS = (
    "x-request-id",
    "request-id",
    "apim-request-id",
    "x-amzn-requestid",
    "x-generation-id",
    "cf-ray",
)
_EXCEPTION_NAMES = ("x-amzn-errortype", ":exception-type", ":error-code")
_SAY_NOTHING = {"error", "invalid_request_error", "response.failed", "api_error"}


def decoded(body: Body) -> dict[str, object] | str:
    """The object in *body*, or its text when there is none."""
    if isinstance(body, bytes | bytearray):
        body = bytes(body[:_LONGEST]).decode("utf-8", "replace")
    if isinstance(body, str):
        text = body[:_LONGEST].strip()
        try:
            value: object = msgspec.json.decode(text.removeprefix("data:").strip())
        except (msgspec.DecodeError, RecursionError):
            return text
        if isinstance(value, str):
            return value
    else:
        value = body
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, Mapping)), {})
    return {str(key): part for key, part in value.items()} if isinstance(value, Mapping) else {}


def _text(text: str, named: list[str], request_id: str | None) -> Report:
    """XML as AWS sends it, a page of a proxy, or words."""
    code = compiled(r"<Code>([^<]{1,200})</Code>").search(text)
    said = compiled(r"<Message>([^<]{1,2000})</Message>").search(text)
    words = [*named, *([code[1]] if code else [])]
    page = compiled(r"^\s*<(!doctype|html|head|\?xml)").search(text) is not None and not code
    return Report(
        codes=" ".join(words),
        code=words[0] if words else "",
        message=(said[1] if said else text)[:_LONGEST_MESSAGE],
        request_id=request_id,
        page=page,
    )


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _layers(payload: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """The objects that may describe the error, the most specific first."""
    response = _object(payload.get("response"))
    delta = _object(payload.get("delta"))
    error = _object(payload.get("error"))
    yield error
    yield _object(error.get("details"))
    yield _object(error.get("metadata"))
    yield _object(response.get("error"))
    yield _object(response.get("incomplete_details"))
    yield _object(payload.get("Error"))
    for choice in _items(payload.get("choices")):
        yield choice
        yield _object(choice.get("error"))
    yield from _items(payload.get("candidates"))
    yield _object(payload.get("promptFeedback"))
    yield delta
    yield _object(delta.get("error"))
    for key, value in payload.items():
        if key.endswith("Exception"):
            yield _object(value)
    for detail in _details(payload):
        yield detail
        yield from _items(detail.get("violations"))
    yield payload


def _items(value: object) -> Iterator[Mapping[str, object]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))


def _details(payload: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Google's list of typed details."""
    return list(_items(_object(payload.get("error")).get("details")))


_WORDS = (
    "code",
    "error_code",
    "error_type",
    "type",
    "status",
    "reason",
    "quotaId",
    "blockReason",
    "finish_reason",
    "finishReason",
    "stop_reason",
    "stopReason",
    "__type",
    "Code",
    "native_finish_reason",
)
_NO_WORDS = {"stop", "end_turn", "tool_calls", "tool_use", "STOP", "MAX_TOKENS", "length"}


def _words(payload: Mapping[str, object]) -> Iterator[str]:
    """Every word that classifies, the most telling first."""
    for layer in _layers(payload):
        for key in _WORDS:
            value = layer.get(key)
            if isinstance(value, str) and value and value not in _NO_WORDS:
                yield value.rpartition("#")[2]
            elif isinstance(value, int) and not isinstance(value, bool):
                yield str(value)
    if "provider_name" in _object(_object(payload.get("error")).get("metadata")):
        yield "upstream"
    # Bedrock's frames are objects under the exception's name.
    yield from (key for key in payload if key.endswith("Exception"))
    if "blockReason" in _object(payload.get("promptFeedback")):
        yield "blockReason"
    if payload.get("error"):
        yield "error"


_MESSAGES = ("message", "Message", "error_message", "detail", "raw", "msg")


def _message(payload: Mapping[str, object]) -> str:
    error = payload.get("error")
    if isinstance(error, str):
        return error
    found = [
        value
        for layer in _layers(payload)
        for key in _MESSAGES
        if isinstance(value := layer.get(key), str) and value
    ]
    details = [m for item in _items(payload.get("detail")) if isinstance(m := item.get("msg"), str)]
    return "\n".join(dict.fromkeys([*found, *details]))


def _status(payload: Mapping[str, object]) -> int | None:
    """A number in the body that means what HTTP's status means."""
    for layer in (_object(payload.get("error")), payload):
        for key in ("code", "status", "status_code", "statusCode"):
            value = layer.get(key)
            if isinstance(value, int) and value in _STATUSES:
                return value
    return None


_DELAYS = ("retry_after", "retryAfter", "retry_after_seconds", "retryDelay")


def _delay(payload: Mapping[str, object]) -> str | None:
    """A field that says how long to wait: Google's RetryInfo, OpenRouter's availability."""
    error = _object(payload.get("error"))
    for layer in (*_details(payload), _object(error.get("availability")), error, payload):
        for key in _DELAYS:
            value = layer.get(key)
            if isinstance(value, str):
                return value
            if isinstance(value, int | float) and not isinstance(value, bool):
                return f"{value:f}"
    return None


def _headers(payload: Mapping[str, object]) -> dict[str, str]:
    metadata = _object(_object(payload.get("error")).get("metadata"))
    headers = _object(metadata.get("headers")).items()
    return {str(name).lower(): str(value) for name, value in headers}


def _retryable(payload: Mapping[str, object]) -> bool | None:
    error = _object(payload.get("error"))
    value = _object(error.get("availability")).get("retryable")
    return value if isinstance(value, bool) else None


def _first(payload: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    for layer in (payload, _object(payload.get("error")), _object(payload.get("ResponseMetadata"))):
        for key in keys:
            value = layer.get(key)
            if isinstance(value, str):
                return value
    return None
