"""The provider over HTTP: every dialect at its routes, and the control API."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from limiter_service.provider_sim import control
from limiter_service.provider_sim.dialects import ROUTES, Dialect, openai_chat
from limiter_service.provider_sim.dialects.base import encode
from limiter_service.provider_sim.options import SimOptions
from limiter_service.provider_sim.playing import Performance
from limiter_service.provider_sim.problems import Kind, Problem
from limiter_service.provider_sim.server import Server

_JSON = "application/json"


def _today() -> datetime:
    return datetime.now(UTC)


def create_sim_app(
    options: SimOptions,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], datetime] = _today,
) -> Starlette:
    """A provider with `options` as an ASGI app.

    `clock` counts the caller's seconds; `wall` tells the date, for headers that have one.
    """
    server = Server(options, clock, wall)
    return Starlette(
        routes=[
            *(Route(path, _endpoint(server, one), methods=["POST"]) for one, path in ROUTES),
            *_models(),
            *_responses(server),
            *control.routes(server),
        ],
        exception_handlers={HTTPException: _unknown_route},
    )


def _endpoint(
    server: Server, dialect: Dialect
) -> Callable[[Request], Awaitable[Performance | Response]]:
    async def endpoint(http: Request) -> Performance | Response:
        try:
            return await server.answer(http, dialect)
        except ClientDisconnect:  # while it sent: nobody hears the answer
            return Response(status_code=400)

    return endpoint


def _responses(server: Server) -> list[Route]:
    async def again(http: Request) -> Performance:
        return server.resumed(http, http.path_params["id"])

    paths = ("/v1/responses/{id}", "/openai/v1/responses/{id}")
    return [Route(path, again, methods=["GET"]) for path in paths]


def _models() -> list[Route]:
    async def models(_: Request) -> Response:
        return Response(encode(openai_chat.model_list()), media_type=_JSON)

    paths = ("/v1/models", "/openai/v1/models", "/mistral/v1/models")
    return [Route(path, models, methods=["GET"]) for path in paths]


def _unknown_route(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = http.method, http.url.path
    if error.status_code == 405:  # noqa: PLR2004 - method not allowed
        problem = Problem(kind=Kind.METHOD, message=f"{method} on {path}")
    else:
        problem = Problem(kind=Kind.ROUTE, message=f"{method} {path}")
    answer = _dialect_of(path).error(problem)
    return Response(answer.body, answer.status, error.headers, answer.media_type)


def _dialect_of(path: str) -> Dialect:
    """The dialect of a known path, or of one that begins alike; else OpenAI's."""
    for dialect, known in ROUTES:
        if path == known or known.startswith(f"/{path.split('/')[1]}/"):
            return dialect
    return openai_chat
