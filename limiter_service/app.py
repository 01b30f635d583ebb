"""Wire settings, store, engine and routes into one ASGI application."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from limiter_service import heap, tracing
from limiter_service.connection import STOPPING
from limiter_service.control import Control
from limiter_service.door import Door, is_loopback, needs, refuse_silent_routes
from limiter_service.engine.admission import Engine
from limiter_service.engine.books import Books
from limiter_service.engine.broadcast import Broadcast
from limiter_service.engine.circuits import Circuits
from limiter_service.engine.counting import Counting
from limiter_service.engine.feed import Feed
from limiter_service.engine.fleet import Fleet
from limiter_service.engine.fleet_traffic import FleetTraffic
from limiter_service.engine.history import History
from limiter_service.engine.keyring import Keyring
from limiter_service.engine.overview import Overview
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.engine.statistics import Wait, Waits
from limiter_service.engine.timeline import Timeline
from limiter_service.engine.turnstile import Turnstile
from limiter_service.engine.unsettled import Unsettled
from limiter_service.engine.witness import Witness
from limiter_service.files import files_allowed
from limiter_service.front import Bounds, Front, Handler
from limiter_service.given_keys import GivenKeys
from limiter_service.guests import GUESTS, Guests, Manners, most_of, networks
from limiter_service.hatch import HATCH, Hatch
from limiter_service.http import JSON, encode, problem_headers
from limiter_service.metrics import Metrics, State
from limiter_service.openapi import document
from limiter_service.pools import Pools
from limiter_service.routes import (
    breakers,
    control,
    dashboard,
    events,
    health,
    keys,
    limits,
    live,
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
from limiter_service.store.access_commands import AccessCommands
from limiter_service.store.breaker_commands import BreakerCommands
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.count_commands import CountCommands
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.fleet_commands import FleetCommands
from limiter_service.store.hints import Hints
from limiter_service.store.keys import FLEET
from limiter_service.stores import connect
from limiter_service.storewatch import StoreWatch
from limiter_wire import ErrorCode, Problem, problem

_log = structlog.get_logger()
_FRAMEWORK_CODES = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED}


def create_app(
    settings: Settings, store_url: str, pools: Pools, tracer_provider: Any = None
) -> Front:
    """The service for one process. Nothing is connected before its lifespan begins. Raises
    NoOpenTelemetry when traces are asked for that cannot be made.
    """
    if tracer_provider is None and settings.traces == "otlp":
        tracer_provider = tracing.provider(version("sluicegate"))
    spans = None if tracer_provider is None else tracing.Spans(tracer_provider)
    client = connect(settings, store_url)
    policies = Policies(pools.config, settings.key_prefix, catalogue=pools.catalogue)
    waits = Waits()

    def observe(wait: Wait) -> None:
        waits.note(wait)
        metrics.note_wait(wait)
        engine.books.waited(wait)

    count_commands = CountCommands(client)
    counting = Counting(count_commands, settings.key_prefix)

    def expired(resource: str, tenant: str) -> None:
        engine.books.expired(resource, tenant)

    unsettled = Unsettled(count_commands.left, expired, settings.key_prefix)
    hints = Hints(client)
    engine = (Engine if spans is None else tracing.TracedEngine)(
        Commands(client),
        policies,
        _wall_us,
        settings.key_prefix,
        hints=hints,
        observe=observe,
        hold_limit=settings.hold_limit,
        books=Books(counting, unsettled),
    )
    app = FastAPI(
        title="Sluicegate",
        version=version("sluicegate"),
        description="One shared budget of requests, tokens and money for every worker.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
        telemetry=tracing.of_routes(tracer_provider),  # type: ignore[arg-type]  # a dict of them
    )
    app.state.tracer_provider = tracer_provider
    app.state.engine, app.state.client, app.state.pools = engine, client, pools
    operators = BreakerCommands(client)

    def names() -> list[str]:
        return [*engine.policies.config.pools]

    def streams() -> list[str]:
        return [*names(), FLEET]

    app.state.counting, app.state.unsettled = counting, unsettled
    app.state.history = History(count_commands, counting, names, settings.key_prefix)
    app.state.circuits = Circuits(operators, lambda: engine.policies, settings.key_prefix)
    app.state.feed = Feed(operators, streams, settings.key_prefix)
    engine.outages.told = app.state.feed.happened
    traffic = FleetTraffic(app.state.history)
    overview = Overview(engine, app.state.circuits, traffic, _wall_us, app.version)
    app.state.broadcast = Broadcast(overview.look, overview.past, app.state.feed, Timeline())
    witness = Witness(operators, names, settings.key_prefix, engine.tally.name)
    turnstile = Turnstile()
    metrics = Metrics(
        engine.tally,
        witness,
        lambda: engine.policies.tenants,
        partial(_state, app),
        engine.outages,
        turnstile,
    )
    engine.books.tell(metrics)
    store = StoreWatch(metrics.called)
    client.watch = store.called
    app.state.witness = witness
    app.state.stopping = False
    app.state.waits, app.state.metrics, app.state.since = waits, metrics, time.monotonic()
    keyring = app.state.keyring = Keyring(
        AccessCommands(client, settings.key_prefix),
        GivenKeys(settings).now,
        grace=settings.key_grace,
        turnstile=turnstile,
    )
    door = Door(
        keyring,
        anonymous=settings.allow_anonymous,
        local=is_loopback(settings.host),
        metrics_open=settings.metrics_open,
    )
    app.include_router(keys.router)
    app.include_router(resources.router)
    app.include_router(queue.router)
    app.include_router(stats.router)
    app.include_router(breakers.router)
    app.include_router(limits.router)
    app.include_router(events.router)
    app.include_router(live.router)
    app.include_router(dashboard.router)
    app.include_router(control.router)
    app.include_router(health.router)
    app.add_api_route("/openapi.json", _openapi, include_in_schema=False, dependencies=[needs()])
    refuse_silent_routes(app)
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
    if isinstance(engine, tracing.TracedEngine):
        assert spans is not None
        engine.spans = spans
        store.tell(spans.called)
        hot = {path: spans.within(handler) for path, handler in hot.items()}
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
    app.state.guests = _guests(settings)
    bounds = Bounds(
        body=settings.max_body, head=settings.max_head, body_timeout=settings.body_timeout
    )
    # Where spans are made, an operation begins in its own: at the hatch none could begin.
    app.state.hatch = Hatch(engine, door, bounds) if spans is None else None
    return Front(app, hot, bounds, {"/v1/channel": channels}, door)


def _guests(settings: Settings) -> Guests:
    """Who may be connected, as the settings and the operating system have it."""
    wanted, of_one = settings.max_connections, settings.max_connections_per_address
    most, most_of_one = most_of(wanted, of_one, files_allowed())
    manners = Manners(
        head=settings.max_head,
        head_timeout=settings.head_timeout,
        body_timeout=settings.body_timeout,
    )
    return Guests(most, most_of_one, networks(settings.trusted_proxies), manners)


def _state(app: FastAPI) -> State:
    """What the metrics say of the process."""
    state = app.state
    return State(
        pools=len(state.engine.policies.config.pools),
        refused=state.pools.problem is not None,
        connections=len(state.guests),
        closed=state.guests.closed,
        channels=state.channels.open,
        held=state.engine.passes.held,
    )


def _wall_us() -> float:
    return time.time_ns() / 1000


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    await _warn_of_eviction(app.state.client)
    await app.state.witness.look()
    await app.state.keyring.begin()
    app.state.engine.outages.start()
    async with app.state.control.running(), heap.tended(heap.of_this_process()):
        try:
            yield {
                STOPPING: app.state.engine.close,
                GUESTS: app.state.guests,
                HATCH: app.state.hatch,
            }
        finally:
            app.state.stopping = True
            await app.state.channels.aclose()
            app.state.engine.close()
            await app.state.engine.lending.recalls.aclose()
            await app.state.engine.passes.aclose()
            await app.state.engine.outages.aclose()
            await app.state.engine.expectations.aclose()
            await app.state.unsettled.aclose()
            await app.state.counting.aclose()
    await app.state.keyring.aclose()
    await app.state.client.aclose()
    if app.state.tracer_provider is not None:
        await asyncio.to_thread(app.state.tracer_provider.shutdown)


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
