"""/v1/breakers: look at circuits, hold them by hand, reset them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from limiter_service.engine.circuits import Circuits
from limiter_service.http import JSON, Reader, encode, media, refuse_media
from limiter_service.openapi import answers, takes
from limiter_wire import BreakerState, Override

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


@router.get("/v1/breakers", responses=answers("BreakerList", 422, 503))
async def breakers(
    request: Request,
    provider: Annotated[
        str | None, Query(max_length=64, description="Only this pool's circuits")
    ] = None,
    state: Annotated[BreakerState | None, Query(description="Only circuits in this state")] = None,
) -> Response:
    """Every circuit that is configured or was asked for, and a verdict for each pool."""
    return _answer(await _circuits(request).all(provider, state))


# Verbs first: a model's name may contain slashes, so what is last decides.
@router.put(
    "/v1/breakers/{pool}/{model:path}/override",
    responses=answers("BreakerView", 400, 404, 408, 409, 415, 422, 503),
    openapi_extra=takes("Override"),
)
async def hold(request: Request, pool: Pool, model: Model) -> Response:
    """Hold a circuit by hand: refuse all calls, pass all, or pass and observe."""
    kind = media(request.scope)
    refuse_media(kind)
    order: Override = _reader.read(await request.body(), kind.body)
    return _answer(await _circuits(request).hold(f"{pool}/{model}", order, _actor(request)))


@router.delete(
    "/v1/breakers/{pool}/{model:path}/override",
    responses=answers("BreakerView", 404, 409, 422, 503),
)
async def release(
    request: Request, pool: Pool, model: Model, expected_generation: Expected = None
) -> Response:
    """Let go of a circuit that is held by hand."""
    circuits = _circuits(request)
    return _answer(await circuits.release(f"{pool}/{model}", expected_generation, _actor(request)))


@router.post(
    "/v1/breakers/{pool}/{model:path}/reset",
    responses=answers("BreakerView", 404, 409, 422, 503),
)
async def reset(
    request: Request, pool: Pool, model: Model, expected_generation: Expected = None
) -> Response:
    """Close a circuit, forget its failures, and lift what its pool is latched by."""
    circuits = _circuits(request)
    return _answer(await circuits.reset(f"{pool}/{model}", expected_generation, _actor(request)))


@router.get("/v1/breakers/{pool}/{model:path}", responses=answers("BreakerView", 404, 422, 503))
async def breaker(request: Request, pool: Pool, model: Model) -> Response:
    """One circuit; its model's name may contain slashes."""
    return _answer(await _circuits(request).one(f"{pool}/{model}"))


def _circuits(request: Request) -> Circuits:
    circuits: Circuits = request.app.state.circuits
    return circuits


def _actor(request: Request) -> str:
    """Who orders: the id of the API key where there are keys."""
    return str(getattr(request.state, "actor", None) or "anonymous")


def _answer(value: object) -> Response:
    return Response(encode(value, JSON), media_type=JSON)
