"""OpenAI chat as Azure serves it: a filter's verdict before and in every chunk."""

from collections.abc import Iterator, Mapping

import msgspec

from limiter_service.provider_sim.dialects import openai_chat, sse
from limiter_service.provider_sim.dialects.base import (
    Frame,
    Json,
    Place,
    Request,
    encode,
)
from limiter_service.provider_sim.headers import whole_seconds
from limiter_service.provider_sim.limits import Meter, Refused, TooLarge
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import ErrorAnswer, Kind, Problem
from limiter_service.provider_sim.provider import Reply

NAME = "azure-chat"
RULES = Rules.AZURE
STREAM_TYPE = sse.MEDIA_TYPE
REQUEST_ID = "apim-request-id"

_SAFE: Json = {
    category: {"filtered": False, "severity": "safe"}
    for category in ("hate", "self_harm", "sexual", "violence")
}
_PRICE_TIER = "current OpenAI S0 pricing tier"


def read_request(body: bytes, path: Mapping[str, str]) -> Request:
    """The request; the deployment in the path is its model."""
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError:
        fields = None
    if isinstance(fields, dict) and "deployment" in path:
        body = encode({**fields, "model": path["deployment"]})
    return openai_chat.read_request(body, path)


def plain(request: Request, reply: Reply) -> bytes:
    """The plain answer with the verdicts."""
    answer = msgspec.json.decode(openai_chat.plain(request, reply))
    answer["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": _SAFE}]
    answer["choices"][0]["content_filter_results"] = _SAFE
    return encode(answer)


def frames(request: Request, reply: Reply) -> Iterator[Frame]:
    """OpenAI's chunks after one without a choice."""
    verdict = {
        "id": "",
        "object": "",
        "created": 0,
        "model": "",
        "choices": [],
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _SAFE}],
    }
    yield Frame(sse.event(verdict), Place.OPENING)
    yield from openai_chat.frames(request, reply)


def keepalive() -> bytes:
    """An event that has a name and no data."""
    return b"event: keepalive\n\n"


def broken() -> bytes:
    """As OpenAI's."""
    return openai_chat.broken()


def stream_error(problem: Problem) -> bytes:
    """As OpenAI's."""
    return openai_chat.stream_error(problem)


def error(problem: Problem) -> ErrorAnswer:
    """Azure's own words for refusals and for what its gateway finds; else OpenAI's."""
    match problem.kind:
        case Kind.RATE_LIMIT | Kind.TOO_LARGE:
            return _body(429, "429", _refusal(problem))
        case Kind.OVERLOADED:
            return _body(
                429,
                "429",
                "The system is currently experiencing high demand and cannot process your request."
                " Your request exceeds the maximum usage size allowed during peak load."
                " Please retry after 6 seconds.",
                {"retry-after": "6", "retry-after-ms": "6000"},
            )
        case Kind.KEY:
            return _body(
                401,
                "401",
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to"
                " provide a valid key for an active subscription.",
            )
        case Kind.MODEL:
            return _body(
                404, "DeploymentNotFound", "The API deployment for this resource does not exist."
            )
        case Kind.FILTERED:
            return _body(
                400,
                "content_filter",
                "The response was filtered due to the prompt triggering Azure OpenAI's content"
                " management policy. Please modify your prompt and retry.",
                inner={"code": "ResponsibleAIPolicyViolation", "content_filter_result": _SAFE},
            )
        case _:
            return openai_chat.error(problem)


def _refusal(problem: Problem) -> str:
    refused, wait = problem.refused, problem.retry_after or 0.0
    operation = f"Requests to the ChatCompletions_Create Operation for {problem.model}"
    calls = isinstance(refused, Refused) and refused.meter is Meter.REQUESTS
    counted = "call" if calls else "token"
    if isinstance(refused, TooLarge):
        return (
            f"{operation} need {refused.requested} tokens and exceed the token rate limit of"
            f" {refused.limit} of your {_PRICE_TIER}."
        )
    return (
        f"{operation} have exceeded {counted} rate limit of your {_PRICE_TIER}."
        f" Please retry after {max(1, whole_seconds(wait))} seconds."
    )


def _body(
    status: int,
    code: str,
    message: str,
    headers: dict[str, str] | None = None,
    inner: Json | None = None,
) -> ErrorAnswer:
    inside: Json = {"code": code, "message": message}
    if inner is not None:
        inside["innererror"] = inner
    return ErrorAnswer(status=status, body=encode({"error": inside}), headers=headers or {})
