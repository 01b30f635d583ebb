"""POST /v1/acquire: reserve budget."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from limiter_service.door import caller_of
from limiter_service.engine.admission import Engine
from limiter_service.engine.callers import Caller
from limiter_service.engine.refusals import refuse
from limiter_service.http import Media, Reader, Scope, header, while_connected
from limiter_service.routes.swift import BEGUN
from limiter_wire import Acquire, ErrorCode, Granted, Waiting

_reader = Reader(Acquire)

T = TypeVar("T")


async def acquire(
    engine: Engine, body: bytes | msgspec.Raw, kind: Media, scope: Scope
) -> Granted | Waiting:
    """Read the request, with `Idempotency-Key` in place of `request_id`, and acquire.

    A request that waits is held while its caller is connected.
    """
    request: Acquire = _reader.read(body, kind.body)
    caller = caller_of(scope)
    caller.reaches(request.resource, request.tenant)
    request = _with_key(request, header(scope, b"idempotency-key"))
    begun = scope.get(BEGUN)
    if request.max_wait <= 0:
        return await engine.acquire(request, begun=begun)
    held = while_connected(engine.acquire(request, request.hold, begun=begun), scope)
    return await _while_valid(held, caller)


async def acquire_in_batch(
    engine: Engine, body: bytes | msgspec.Raw, kind: Media, scope: Scope
) -> Granted | Waiting:
    """The same beside other operations, which must not wait for it: it is never held."""
    request: Acquire = _reader.read(body, kind.body)
    caller_of(scope).reaches(request.resource, request.tenant)
    return await engine.acquire(request, hold=0.0)


async def _while_valid(work: Coroutine[Any, Any, T], caller: Caller) -> T:
    """Do *work* while the caller's key is valid. Raises Refusal when that is over before."""
    task = asyncio.create_task(work)

    def ended(_why: str) -> None:
        task.cancel()

    try:
        with caller.watched(ended):
            await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
    if task.cancelled() and caller.why_ended is not None:
        raise refuse(ErrorCode.UNAUTHENTICATED, caller.why_ended)
    return await task


def _with_key(request: Acquire, key: str | None) -> Acquire:
    if key is None or key == request.request_id:
        return request
    if request.request_id is not None:
        detail = "`request_id` and the header Idempotency-Key differ; send one of them"
        raise refuse(ErrorCode.INVALID, detail)
    try:
        return msgspec.convert({**msgspec.structs.asdict(request), "request_id": key}, Acquire)
    except msgspec.ValidationError as error:
        detail = "Idempotency-Key is 1 to 200 visible ASCII characters"
        raise refuse(ErrorCode.INVALID, detail) from error
