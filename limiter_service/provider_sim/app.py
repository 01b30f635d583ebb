"""The provider over HTTP: reads, asks the core, waits, writes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import assert_never

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from limiter_service.provider_sim import openai_chat, openai_errors
from limiter_service.provider_sim.headers import rate_limit_headers, retry_headers
from limiter_service.provider_sim.limits import Admitted, Refused, TooLarge
from limiter_service.provider_sim.openai_chat import ChatRequest
from limiter_service.provider_sim.openai_errors import BadRequestError
from limiter_service.provider_sim.options import SimOptions
from limiter_service.provider_sim.provider import Provider, Reply

_JSON = "application/json"
_INPUT_HEADER = "x-sim-input-tokens"
_OUTPUT_HEADER = "x-sim-output-tokens"

# Timers of a loaded loop are late by milliseconds: tokens that are due within this many
# real seconds leave together, or a fast stream would fall behind its own rate.
_TIMER_GRAIN = 0.005

_encode = msgspec.json.Encoder().encode


def create_sim_app(options: SimOptions, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """A provider with `options` as an ASGI app; `clock` counts the caller's seconds."""
    server = _Server(options, clock)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
            Route("/v1/models", server.models, methods=["GET"]),
            Route("/sim/stats", server.stats, methods=["GET"]),
            Route("/sim/reset", server.reset, methods=["POST"]),
        ],
        exception_handlers={
            BadRequestError: _bad_request,
            HTTPException: _unknown_route,
        },
    )


class _Server:
    """Holds the provider of the moment, which a reset replaces, and its clock."""

    def __init__(self, options: SimOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._restart()

    def _restart(self) -> None:
        self._provider = Provider(self._options)
        self._began = self._clock()

    def _now(self) -> float:
        return (self._clock() - self._began) * self._options.speed

    async def chat(self, http: Request) -> Response:
        request = openai_chat.read_request(await http.body())
        ask = openai_chat.ask_of(
            request,
            input_tokens=openai_chat.read_size(_INPUT_HEADER, http.headers.get(_INPUT_HEADER)),
            output_tokens=openai_chat.read_size(_OUTPUT_HEADER, http.headers.get(_OUTPUT_HEADER)),
        )
        reply = self._provider.answer(ask, self._now())
        speed = self._options.speed
        headers = rate_limit_headers(reply.decision.quotas, speed)
        headers["x-request-id"] = f"req_{reply.identity}"
        match reply.decision:
            case Admitted():
                return await self._admitted(request, reply, headers)
            case Refused(retry_after=wait) as refused:
                body = openai_errors.refusal(request.model, refused, wait / speed)
                return _json(body, 429, headers | retry_headers(wait / speed))
            case TooLarge() as refused:
                return _json(openai_errors.too_large(request.model, refused), 429, headers)
            case _:
                assert_never(reply.decision)

    async def _admitted(
        self, request: ChatRequest, reply: Reply, headers: dict[str, str]
    ) -> Response:
        if request.stream:
            frames = self._frames(request, reply)
            return StreamingResponse(frames, headers=headers, media_type="text/event-stream")
        await asyncio.sleep(reply.duration / self._options.speed)
        return Response(openai_chat.completion(request, reply), headers=headers, media_type=_JSON)

    async def _frames(self, request: ChatRequest, reply: Reply) -> AsyncIterator[bytes]:
        """The stream's events, each when it is due; late ones leave together."""
        speed = self._options.speed
        first = reply.first_token / speed
        gap = (reply.duration - reply.first_token) / reply.output_tokens / speed
        began = self._clock()
        await asyncio.sleep(first)
        frames = [openai_chat.opening(request, reply)]
        for number, delta in enumerate(openai_chat.deltas(request, reply)):
            early = began + first + number * gap - self._clock()
            if early > _TIMER_GRAIN:
                yield b"".join(frames)
                frames.clear()
                await asyncio.sleep(early)
            frames.append(delta)
        frames.append(openai_chat.closing(request, reply))
        yield b"".join(frames)

    async def models(self, _: Request) -> Response:
        return _json(openai_chat.model_list())

    async def stats(self, _: Request) -> Response:
        return _json(self._provider.stats(self._now()))

    async def reset(self, _: Request) -> Response:
        self._restart()
        return Response(status_code=204)


def _json(
    body: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(_encode(body), status, headers, _JSON)


def _bad_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequestError)
    return _json(error.body, 400)


def _unknown_route(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:  # noqa: PLR2004 - method not allowed
        return _json(openai_errors.not_allowed(http.method, http.url.path), 405, error.headers)
    return _json(openai_errors.not_found(http.method, http.url.path), error.status_code)
