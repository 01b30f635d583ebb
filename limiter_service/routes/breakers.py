"""/v1/breakers: look at circuits, hold them by hand, reset them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from limiter_service.door import caller_of, needs
from limiter_service.engine.circuits import Circuits
from limiter_service.http import JSON, Reader, encode, media, refuse_media
from limiter_service.openapi import answers, takes
from limiter_service.routes.audit import audit
from limiter_wire import BreakerState, Override, Role

router = APIRouter(tags=["breakers"])
_reader = Reader(Override)

Pool = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Model = Annotated[
    str, Path(max_length=235, pattern=r"^[!-~]+$", description="It may contain slashes")
]
Expected = Annotated[
    int | None,
    Query(ge=0, le=2**53, description="Refuse when the circuit's generation is another"),
]
Why = Annotated[str, Query(max_length=500, description="Told in the events and in the log")]


@router.get(
    "/v1/breakers", responses=answers("BreakerList", 422, 503), dependencies=[needs(Role.READ)]
)
async def breakers(
    request: Request,
    provider: Annotated[
        str | None, Query(max_length=64, description="Only this pool's circuits")
    ] = None,
    state: Annotated[BreakerState | None, Query(description="Only circuits in this state")] = None,
) -> Response:
    """Every circuit that is configured or was asked for, and a verdict for each pool."""
    caller = caller_of(request.scope)
    return _answer(await _circuits(request).all(provider, state, caller.has_pool))


# Verbs first: a model's name may contain slashes, so what is last decides.
@router.put(
    "/v1/breakers/{pool}/{model:path}/override",
    responses=answers("BreakerView", 400, 404, 408, 409, 415, 422, 503),
    openapi_extra=takes("Override"),
    dependencies=[needs(Role.ADMIN)],
)
async def hold(request: Request, pool: Pool, model: Model) -> Response:
    """Hold a circuit by hand: refuse all calls, pass all, or pass and observe."""
    actor = _actor(request, pool)
    kind = media(request.scope)
    refuse_media(kind)
    order: Override = _reader.read(await request.body(), kind.body)
    view = await _circuits(request).hold(f"{pool}/{model}", order, actor)
    audit(request, f"breaker.hold {order.mode}", f"{pool}/{model}", order.reason)
    return _answer(view)


@router.delete(
    "/v1/breakers/{pool}/{model:path}/override",
    responses=answers("BreakerView", 404, 409, 422, 503),
    dependencies=[needs(Role.ADMIN)],
)
async def release(
    request: Request,
    pool: Pool,
    model: Model,
    expected_generation: Expected = None,
    reason: Why = "",
) -> Response:
    """Let go of a circuit that is held by hand."""
    actor, circuits = _actor(request, pool), _circuits(request)
    view = await circuits.release(f"{pool}/{model}", expected_generation, actor, reason)
    audit(request, "breaker.release", f"{pool}/{model}", reason)
    return _answer(view)


@router.post(
    "/v1/breakers/{pool}/{model:path}/reset",
    responses=answers("BreakerView", 404, 409, 422, 503),
    dependencies=[needs(Role.ADMIN)],
)
async def reset(
    request: Request,
    pool: Pool,
    model: Model,
    expected_generation: Expected = None,
    reason: Why = "",
) -> Response:
    """Close a circuit, forget its failures, and lift what its pool is latched by."""
    actor, circuits = _actor(request, pool), _circuits(request)
    view = await circuits.reset(f"{pool}/{model}", expected_generation, actor, reason)
    audit(request, "breaker.reset", f"{pool}/{model}", reason)
    return _answer(view)


@router.get(
    "/v1/breakers/{pool}/{model:path}",
    responses=answers("BreakerView", 404, 422, 503),
    dependencies=[needs(Role.READ)],
)
async def breaker(request: Request, pool: Pool, model: Model) -> Response:
    """One circuit; its model's name may contain slashes."""
    caller_of(request.scope).reaches_pool(pool)
    return _answer(await _circuits(request).one(f"{pool}/{model}"))


def _circuits(request: Request) -> Circuits:
    circuits: Circuits = request.app.state.circuits
    return circuits


def _actor(request: Request, pool: str) -> str:
    """Who orders. Raises Refusal: a circuit is shared by all tenants of its pool."""
    caller = caller_of(request.scope)
    caller.reaches_all_of(pool)
    return caller.actor


def _answer(value: object) -> Response:
    return Response(encode(value, JSON), media_type=JSON)
