"""What a request says over HTTP besides its body: whose it is, and how it is to be answered."""

import re

from starlette.requests import Request as HttpRequest

from limiter_service.provider_sim.content import Words
from limiter_service.provider_sim.dialects import Request
from limiter_service.provider_sim.dialects.reading import read_size
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import BadRequestError
from limiter_service.provider_sim.provider import Ask

FAULT = "x-sim-fault"

_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")
_BEARER = re.compile(r"bearer\s+(\S+)", re.IGNORECASE)
_AWS_KEY = re.compile(r"Credential=([^/,\s]+)")
_NO_KEY = "(none)"


def key_of(http: HttpRequest) -> str:
    """The key that a request is made with, in any of the providers' places."""
    for name in _KEY_HEADERS:
        if value := http.headers.get(name):
            return value
    authorization = http.headers.get("authorization", "")
    found = _BEARER.fullmatch(authorization.strip()) or _AWS_KEY.search(authorization)
    return found[1] if found else http.query_params.get("key", _NO_KEY)


def fault_of(http: HttpRequest) -> str:
    """The faults that a request asks for, in a header or in its query."""
    return http.headers.get(FAULT) or http.query_params.get(FAULT, "")


def size_of(http: HttpRequest, name: str, least: int = 0) -> int | None:
    """The number in `x-sim-...`. Raises BadRequestError."""
    header = f"x-sim-{name}"
    return read_size(header, http.headers.get(header), least=least)


def ask_of(http: HttpRequest, request: Request, rules: Rules) -> Ask:
    """The request in tokens; what its headers fix replaces estimate and chance.

    Raises BadRequestError.
    """
    prompt = size_of(http, "input-tokens", 1)
    read = size_of(http, "cache-read-tokens") or 0
    written = size_of(http, "cache-write-tokens") or 0
    calls = size_of(http, "tool-calls")
    if calls is None:
        calls = 1 if request.wants_call else 0
    words = http.headers.get("x-sim-words", Words.PLAIN)
    if words not in list(Words):
        text = f"Invalid value for 'x-sim-words': expected one of {', '.join(Words)}."
        raise BadRequestError(text, "x-sim-words", "invalid_value")
    tools = request.tools
    return Ask(
        input_tokens=max(request.input_tokens if prompt is None else prompt, read + written),
        cache_read=read,
        cache_write=written,
        max_output=request.max_output,
        output_tokens=size_of(http, "output-tokens", 1),
        reasoning_tokens=size_of(http, "reasoning-tokens") or 0,
        calls=[tools[number % len(tools)] for number in range(calls)] if tools else (),
        words=Words(words),
        prefill=request.prefill,
        model=request.model,
        key=key_of(http),
        rules=rules,
    )
