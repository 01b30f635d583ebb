"""How a provider call ended, judged by the exception that left the `with` block. Pure.

Exceptions of provider SDKs and HTTP clients are read by what hangs on them (`response`,
`body`, `status_code`), so none of these packages is imported; what it means is known to
`limiter_wire.providers`, which is loaded when the first call fails.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import msgspec

from client_sdk.errors import CallFailed
from limiter_wire import Cause, Outcome, SpentLimit

if TYPE_CHECKING:
    from limiter_wire.providers import Failure

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_MOST_HEADERS, _LONGEST_HEADER = 64, 256
_OF_LIMITS = (
    "ratelimit",
    "retry-after",
    "x-should-retry",
    "anthropic-fast-",
    "anthropic-priority-",
)
_CLIENTS_OWN = {"APIConnectionError", "APITimeoutError"}
_TIMEOUTS = {"TimeoutException", "APITimeoutError", "Timeout"}
_TRANSPORT = {"TransportError", "APIConnectionError", "ConnectionError"}
_TELLING = (
    "PoolTimeout",
    "ConnectTimeout",
    "ConnectError",
    "gaierror",
    "WriteTimeout",
    "WriteError",
    "ConnectionRefusedError",
    "BrokenPipeError",
)
# SDKs whose exceptions are one provider's; the openai package talks to anybody.
_MODULES = {
    "anthropic": "anthropic",
    "botocore": "bedrock",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "groq": "groq",
    "mistralai": "mistral",
    "ollama": "ollama",
    "together": "together",
}


def outcome_of(error: BaseException | None) -> Outcome:
    """The outcome to report for *error*."""
    return report_of(error)[0]


def report_of(error: BaseException | None) -> tuple[Outcome, float | None]:
    """The outcome to report for *error*, and the seconds to wait if the provider named any.

    What is not known to come from the provider is `cancelled`: neutral, and without usage
    the reservation stays spent, since the provider may have served the call.
    """
    if error is None:
        return Outcome.SUCCESS, None
    if isinstance(error, CallFailed) and error.category is not None:
        return error.category, error.retry_after
    failure = failure_of(error)
    if failure is None:
        return Outcome.CANCELLED, None
    return failure.outcome, failure.retry_after


def cause_of(error: BaseException | None) -> Cause | None:
    """What a settle says of *error* beside its outcome; None when there is no more to say."""
    if error is None:
        return None
    if isinstance(error, CallFailed) and error.category is not None:
        return None if error.status is None else Cause(status=error.status)
    failure = failure_of(error)
    return None if failure is None else cause_in(failure)


def cause_in(failure: "Failure") -> Cause:
    """The same for a failure that is understood: how far it reaches, and what comes back."""
    from limiter_wire.providers import Pin, Refund  # noqa: PLC0415  # loaded when a call fails

    reach: Literal["model", "pool"] | None = None
    if failure.pin is not None:
        reach = "model" if failure.pin in {Pin.MODEL, Pin.DEPLOYMENT} else "pool"
    back: dict[Refund, Literal["all", "tokens"]] = {Refund.ALL: "all", Refund.TOKENS: "tokens"}
    return Cause(
        reach=reach,
        refund=back.get(failure.refund, "none"),
        status=failure.status,
        digest=crc32(failure.message.encode()) if failure.message else None,
    )


def telling(headers: Headers) -> dict[str, str]:
    """The headers that say something about limits, by name in lower case; nothing else leaves
    the process.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        if any(word in lower for word in _OF_LIMITS) and len(value) <= _LONGEST_HEADER:
            found[lower] = value
        if len(found) == _MOST_HEADERS:
            break
    return found


def limits_told(error: BaseException) -> tuple[dict[str, str], SpentLimit | None]:
    """What the provider's answer behind *error* says about limits: in headers, in its text."""
    failure = failure_of(error)
    headers = telling(_headers(error, _get(error, "response")))
    return headers, None if failure is None else failure.limit


def by_status(status: int) -> Outcome:
    """The outcome that an HTTP status stands for."""
    from limiter_wire.providers import classify  # noqa: PLC0415  # loaded when a call fails

    return classify("generic", status=status).outcome


def failure_of(error: BaseException) -> "Failure | None":
    """What *error* says about the provider call; None when it says nothing about it."""
    from limiter_wire.providers import classify, classify_local  # noqa: PLC0415  # as above

    status, response = _status(error), _get(error, "response")
    body, headers = _body(error, response), _headers(error, response)
    provider = _provider(error, response)
    if status is not None:
        return classify(provider, status=status, headers=headers, body=body)
    if isinstance(body, Mapping) and body:  # an error event that an SDK raised
        return classify(provider, headers=headers, body=body, stream=True)
    cause = _local_cause(error)
    return None if cause is None else classify_local(cause, provider or "generic", str(error))


def _get(thing: object, name: str) -> Any:  # foreign attributes may be anything
    """An attribute, None where there is none; properties of foreign classes may raise."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  # whatever a foreign property raises, it says nothing
        return None


def _status(error: BaseException) -> int | None:
    """The HTTP status that provider SDKs and HTTP clients hang on their exceptions."""
    response = _get(error, "response")
    for holder, name in (
        (error, "status_code"),
        (response, "status_code"),
        (_get(error, "raw_response"), "status_code"),
        (error, "status"),
        (error, "code"),
    ):
        status = _get(holder, name)
        if isinstance(status, int) and not isinstance(status, bool) and 100 <= status < 1000:  # noqa: PLR2004  # of HTTP
            return int(status)
    metadata = response.get("ResponseMetadata") if isinstance(response, Mapping) else None
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
    return status if isinstance(status, int) else None


def _body(error: BaseException, response: object) -> Any:  # as classify takes it
    """The body of the refusal, as complete as it is at hand; nothing is read for it."""
    if isinstance(response, Mapping):
        return response
    # A streaming response of `requests` would go to the network for its content.
    if response is not None and _get(response, "_content_consumed") is not False:
        content = _get(response, "content")
        if isinstance(content, bytes) and content:
            return content
    for name in ("body", "details", "error"):
        body = _get(error, name)
        if isinstance(body, Mapping | bytes | str | list) and body:
            return {"error": body} if name == "error" else body
        if isinstance(body, msgspec.Struct) or hasattr(type(body), "model_dump"):
            return {"message": str(error)}
    return None


def _headers(error: BaseException, response: object) -> dict[str, str]:
    if isinstance(response, Mapping):
        metadata = response.get("ResponseMetadata")
        found = metadata.get("HTTPHeaders") if isinstance(metadata, Mapping) else None
    else:
        found = _get(response, "headers") or _get(error, "headers")
    items = _get(found, "items")
    if not callable(items):
        return {}
    return {str(name).lower(): str(value) for name, value in items()}


def _provider(error: BaseException, response: object) -> str | None:
    """The provider by the host that was called, else by the SDK that raised; None: detect."""
    from limiter_wire.providers import by_host  # noqa: PLC0415  # as above

    if isinstance(response, Mapping):
        return "bedrock"  # botocore's way
    for holder in (response, error):
        url = _get(_get(holder, "request"), "url") or _get(holder, "url")
        if url is not None:
            return by_host(str(url))
    return _MODULES.get(type(error).__module__.partition(".")[0])


def _local_cause(error: BaseException) -> str | None:
    """What happened on our side, in the words of `classify_local`; None: nothing of the kind.

    An SDK's own error stands for that of the HTTP client inside it. Whether a read failed
    before or within the answer cannot be seen from here.
    """
    for each in _chain(error):
        names = {kind.__name__ for kind in type(each).__mro__}
        for name in _TELLING:
            if name in names:
                return f"{name}: {each}"
        if "RemoteProtocolError" in names and str(each):
            return f"RemoteProtocolError: {each}"
        if isinstance(each, TimeoutError) or names & _TIMEOUTS:
            return "TimeoutException"
        if isinstance(each, ConnectionError) or names & _TRANSPORT:
            return "TransportError"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The causes of an SDK's connection error, the innermost first; else *error* alone."""
    cause = error.__cause__
    names = {kind.__name__ for kind in type(error).__mro__}
    if cause is not None and names & _CLIENTS_OWN:
        yield from _chain(cause)
    yield error
