"""Wire settings, store, engine and routes into one ASGI application."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib.metadata import version

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from limiter_service.connection import STOPPING
from limiter_service.control import Control
from limiter_service.engine.admission import Engine
from limiter_service.engine.circuits import Circuits
from limiter_service.engine.feed import Feed
from limiter_service.engine.fleet import Fleet
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.engine.statistics import Wait, Waits
from limiter_service.engine.witness import Witness
from limiter_service.front import Bounds, Front, Handler
from limiter_service.http import JSON, encode, problem_headers
from limiter_service.metrics import Metrics
from limiter_service.openapi import document
from limiter_service.pools import Pools
from limiter_service.routes import (
    breakers,
    control,
    events,
    health,
    limits,
    queue,
    resources,
    stats,
)
from limiter_service.routes.acquire import acquire
from limiter_service.routes.batch import batch
from limiter_service.routes.channel import Channels
from limiter_service.routes.check import check
from limiter_service.routes.observe import observe as observe_headers
from limiter_service.routes.renew import renew
from limiter_service.routes.settle import settle
from limiter_service.settings import Settings
from limiter_service.store.breaker_commands import BreakerCommands
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.fleet_commands import FleetCommands
from limiter_service.store.hints import Hints
from limiter_service.store.keys import FLEET
from limiter_wire import ErrorCode, Problem, problem

_log = structlog.get_logger()
_FRAMEWORK_CODES = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED}


def create_app(settings: Settings, store_url: str, pools: Pools) -> Front:
    """The service for one process. Nothing is connected before its lifespan begins."""
    client = Client(
        store_url,
        connect_timeout=settings.connect_timeout,
        command_timeout=settings.command_timeout,
    )
    policies = Policies(pools.config, settings.key_prefix, catalogue=pools.catalogue)
    waits = Waits()

    def observe(wait: Wait) -> None:
        waits.note(wait)
        metrics.note_wait(wait)

    hints = Hints(client)
    engine = Engine(
        Commands(client),
        policies,
        _wall_us,
        settings.key_prefix,
        hints=hints,
        observe=observe,
        hold_limit=settings.hold_limit,
    )
    app = FastAPI(
        title="Sluicegate",
        version=version("sluicegate"),
        description="One shared budget of requests, tokens and money for every worker.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
    )
    app.state.engine, app.state.client, app.state.pools = engine, client, pools
    operators = BreakerCommands(client)

    def names() -> list[str]:
        return [*engine.policies.config.pools]

    def streams() -> list[str]:
        return [*names(), FLEET]

    app.state.circuits = Circuits(operators, lambda: engine.policies, settings.key_prefix)
    app.state.feed = Feed(operators, streams, settings.key_prefix)
    witness = Witness(operators, names, settings.key_prefix, engine.tally.name)
    metrics = Metrics(engine.tally, witness)
    engine.books.tell(metrics)
    app.state.witness = witness
    app.state.stopping = False
    app.state.waits, app.state.metrics, app.state.since = waits, metrics, time.monotonic()
    app.include_router(resources.router)
    app.include_router(queue.router)
    app.include_router(stats.router)
    app.include_router(breakers.router)
    app.include_router(limits.router)
    app.include_router(events.router)
    app.include_router(control.router)
    app.include_router(health.router)
    app.add_route("/openapi.json", _openapi, include_in_schema=False)
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(Exception, _failure)
    hot: dict[str, Handler] = {
        "/v1/acquire": partial(acquire, engine),
        "/v1/settle": partial(settle, engine),
        "/v1/renew": partial(renew, engine),
        "/v1/check": partial(check, engine),
        "/v1/observe": partial(observe_headers, engine),
        "/v1/batch": partial(batch, engine),
    }
    channels = app.state.channels = Channels(engine, settings.max_body)
    app.state.control = Control(
        Fleet(FleetCommands(client, settings.key_prefix)),
        pools,
        engine,
        channels,
        hints,
        key_prefix=settings.key_prefix,
        log_level=settings.log_level,
    )
    bounds = Bounds(
        body=settings.max_body, head=settings.max_head, body_timeout=settings.body_timeout
    )
    return Front(app, hot, bounds, {"/v1/channel": channels})


def _wall_us() -> float:
    return time.time_ns() / 1000


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Callable[[], None]]]:
    await _warn_of_eviction(app.state.client)
    await app.state.witness.look()
    async with app.state.control.running():
        try:
            yield {STOPPING: app.state.engine.passes.close}
        finally:
            app.state.stopping = True
            await app.state.channels.aclose()
            await app.state.engine.passes.aclose()
            await app.state.engine.expectations.aclose()
    await app.state.client.aclose()


async def _warn_of_eviction(client: Client) -> None:
    """A store that evicts keys forgets what was spent."""
    try:
        memory = await client.info("memory")
    except StoreUnavailable as error:
        _log.warning("the store does not answer yet", problem=str(error))
        return
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        _log.error("the store may evict budgets: set maxmemory-policy noeviction", policy=policy)


async def _openapi(request: Request) -> Response:
    return Response(encode(document(request.app), JSON), media_type=JSON)


def _problem_response(request: Request, answer: Problem, extra: dict[str, str]) -> Response:
    named = problem(
        answer.code,
        answer.detail,
        resource=answer.resource,
        retry_after=answer.retry_after,
        request_id=getattr(request.state, "request_id", None),
    )
    headers = {k.decode(): v.decode() for k, v in problem_headers(answer)} | extra
    media_type = "application/problem+json"
    return Response(encode(named, JSON), answer.status, headers, media_type)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _problem_response(request, error.problem, {})


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Never the input itself: a lone surrogate in it could not even be encoded.
    parts = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return _problem_response(request, problem(ErrorCode.INVALID, "; ".join(parts)), {})


async def _framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _FRAMEWORK_CODES.get(error.status_code, ErrorCode.MALFORMED)
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return _problem_response(request, problem(code, detail), dict(error.headers or {}))


async def _failure(request: Request, error: Exception) -> Response:
    identity = getattr(request.state, "request_id", None)
    _log.error("request failed", path=request.url.path, request_id=identity, exc_info=error)
    detail = "the service failed; its log has the request id"
    return _problem_response(request, problem(ErrorCode.INTERNAL, detail), {})
