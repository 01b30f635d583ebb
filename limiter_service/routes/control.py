"""/v1/replicas, /v1/drain, /v1/log-level, /v1/config: the replicas themselves."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from limiter_service import config_view
from limiter_service.config import Config, ConfigError, parse
from limiter_service.config_advice import advice
from limiter_service.control import Control
from limiter_service.door import caller_of, needs
from limiter_service.engine.fleet import DRAIN, LOG_LEVEL
from limiter_service.http import JSON, Reader, encode, media, refuse_media
from limiter_service.openapi import answers, takes
from limiter_service.pools import Pools
from limiter_service.routes.audit import audit
from limiter_wire import (
    ConfigFault,
    ConfigText,
    ConfigVerdict,
    ConfigView,
    Drain,
    LogLevelOrder,
    ReloadOrder,
    Role,
)

ALL = "every replica"

router = APIRouter(tags=["replicas"])
_drain_reader, _level_reader = Reader(Drain), Reader(LogLevelOrder)
_text_reader, _reload_reader = Reader(ConfigText), Reader(ReloadOrder)

Replica = Annotated[
    str | None,
    Query(max_length=200, pattern=r"^[!-~]+$", description="The order to it; none: that to all"),
]
Why = Annotated[str, Query(max_length=500, description="Told in the event")]


@router.get(
    "/v1/replicas",
    responses=answers("FleetView", 503),
    dependencies=[needs(Role.READ)],
)
async def replicas(request: Request) -> Response:
    """Every replica over this store, and what is ordered of them."""
    return _answer(await _control(request).fleet.view())


@router.put(
    "/v1/drain",
    responses=answers("FleetView", 400, 408, 415, 422, 503),
    openapi_extra=takes("Drain"),
    dependencies=[needs(Role.ADMIN, everywhere=True)],
)
async def drain(request: Request) -> Response:
    """Grant nothing new, and be unready, within a second; what is granted can be settled."""
    order: Drain = await _read(request, _drain_reader)
    fleet, actor = _control(request).fleet, _actor(request)
    view = await fleet.order(DRAIN, order.replica, "draining", order.ttl, actor, order.reason)
    audit(request, "drain.begin", order.replica or ALL, order.reason)
    return _answer(view)


@router.delete(
    "/v1/drain",
    responses=answers("FleetView", 422, 503),
    dependencies=[needs(Role.ADMIN, everywhere=True)],
)
async def take_up(request: Request, replica: Replica = None, reason: Why = "") -> Response:
    """Grant again."""
    fleet = _control(request).fleet
    view = await fleet.clear(DRAIN, replica, _actor(request), reason)
    audit(request, "drain.end", replica or ALL, reason)
    return _answer(view)


@router.put(
    "/v1/log-level",
    responses=answers("FleetView", 400, 408, 415, 422, 503),
    openapi_extra=takes("LogLevelOrder"),
    dependencies=[needs(Role.ADMIN, everywhere=True)],
)
async def log_level(request: Request) -> Response:
    """Log more, or less, within a second."""
    order: LogLevelOrder = await _read(request, _level_reader)
    fleet, actor = _control(request).fleet, _actor(request)
    view = await fleet.order(LOG_LEVEL, order.replica, order.level, order.ttl, actor, order.reason)
    audit(request, "log-level.set", order.replica or ALL, order.reason)
    return _answer(view)


@router.delete(
    "/v1/log-level",
    responses=answers("FleetView", 422, 503),
    dependencies=[needs(Role.ADMIN, everywhere=True)],
)
async def configured_level(request: Request, replica: Replica = None, reason: Why = "") -> Response:
    """Log again as it was started to."""
    fleet = _control(request).fleet
    view = await fleet.clear(LOG_LEVEL, replica, _actor(request), reason)
    audit(request, "log-level.clear", replica or ALL, reason)
    return _answer(view)


@router.get(
    "/v1/config", responses=answers("ConfigView"), dependencies=[needs(Role.READ, everywhere=True)]
)
async def config(request: Request) -> Response:
    """What is in force at this replica; it contains no secret."""
    control = _control(request)
    pools = control.pools
    view = ConfigView(
        replica=control.fleet.name,
        version=pools.version,
        source=pools.source,
        read_at=pools.read_at,
        faults=_faults(pools),
        config=config_view.effective(pools.config),
    )
    return _answer(view)


@router.post(
    "/v1/config/validate",
    responses=answers("ConfigVerdict", 400, 408, 415, 422),
    openapi_extra=takes("ConfigText"),
    dependencies=[needs(Role.ADMIN, everywhere=True)],
)
async def validate(request: Request) -> Response:
    """What this replica would do with a pools file; nothing changes."""
    told: ConfigText = await _read(request, _text_reader)
    return _answer(await asyncio.to_thread(_verdict, told, _control(request).pools))


@router.post(
    "/v1/config/reload",
    responses=answers("Reloaded", 400, 408, 415, 422, 503),
    openapi_extra=takes("ReloadOrder"),
    dependencies=[needs(Role.ADMIN, everywhere=True)],
)
async def reload(request: Request) -> Response:
    """Read the pools file again; when it is good, every replica reads its own."""
    order: ReloadOrder = await _read(request, _reload_reader)
    done = await _control(request).reload(_actor(request), order.reason)
    audit(request, "config.reload", done.replica, order.reason)
    return _answer(done)


def _verdict(told: ConfigText, pools: Pools) -> ConfigVerdict:
    base = pools.path.parent if pools.path else None
    known = [pools.config.price_file] if pools.config.price_file else []
    try:
        found = parse(told.text, f".{told.format}", base=base, price_files=known)
    except ConfigError as error:
        faults = [ConfigFault(path=each.path, message=each.message) for each in error.problems]
        return ConfigVerdict(valid=False, faults=faults)
    return ConfigVerdict(
        valid=True,
        version=config_view.version(found, _prices(pools, found)),
        changes=config_view.changes(pools.config, found),
        notes=advice(found),
    )


def _prices(pools: Pools, found: Config) -> bytes | None:
    if found.price_file is None or pools.path is None:
        return None
    return Path(pools.path.parent / found.price_file).read_bytes()


def _faults(pools: Pools) -> list[ConfigFault]:
    return [ConfigFault(path=each.path, message=each.message) for each in pools.problems]


async def _read(request: Request, reader: Reader) -> Any:  # what the reader reads
    kind = media(request.scope)
    refuse_media(kind)
    return reader.read(await request.body(), kind.body)


def _control(request: Request) -> Control:
    control: Control = request.app.state.control
    return control


def _actor(request: Request) -> str:
    return caller_of(request.scope).actor


def _answer(value: object) -> Response:
    return Response(encode(value, JSON), media_type=JSON)
