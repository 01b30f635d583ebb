"""POST /v1/batch: operations side by side; one that fails does not fail the rest."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
import structlog

from limiter_service.door import CALLER
from limiter_service.engine.admission import Engine
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.http import Media, Reader, Scope, status_of_answer
from limiter_service.routes.acquire import acquire_in_batch
from limiter_service.routes.check import check
from limiter_service.routes.observe import observe
from limiter_service.routes.renew import renew
from limiter_service.routes.settle import settle
from limiter_wire import BatchAnswer, BatchResult, ErrorCode, Operation, Wire

_RUN: dict[Operation, Callable[..., Awaitable[Wire]]] = {
    Operation.ACQUIRE: acquire_in_batch,
    Operation.SETTLE: settle,
    Operation.RENEW: renew,
    Operation.CHECK: check,
    Operation.OBSERVE: observe,
}
_log = structlog.get_logger()


class _Batch(Wire, frozen=True, kw_only=True):
    ops: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=256)]


class _Tagged(Wire, frozen=True, kw_only=True):
    op: Operation


_batch_reader, _tag_reader = Reader(_Batch), Reader(_Tagged)


async def batch(engine: Engine, body: bytes, kind: Media, scope: Scope) -> BatchAnswer:
    """Run every operation at once and answer in the order of the request."""
    request: _Batch = _batch_reader.read(body, kind.body)
    alone: Scope = {"headers": [], CALLER: scope[CALLER]}
    results = await asyncio.gather(*(_run(engine, op, kind, alone) for op in request.ops))
    return BatchAnswer(results=list(results))


async def _run(engine: Engine, op: msgspec.Raw, kind: Media, scope: Scope) -> BatchResult:
    return await result_of(_perform(engine, op, kind, scope))


async def _perform(engine: Engine, op: msgspec.Raw, kind: Media, scope: Scope) -> Wire:
    tagged: _Tagged = _tag_reader.read(op, kind.body)
    return await _RUN[tagged.op](engine, op, kind, scope)


async def result_of(work: Awaitable[Wire]) -> BatchResult:
    """What comes of one operation among others: an answer or a problem, and never an exception."""
    try:
        answer = await work
    except Refusal as refusal:
        return BatchResult(status=refusal.problem.status, body=refusal.problem)
    except Exception as error:  # noqa: BLE001  # whatever it is: the others get their answers
        return failed(error)
    return BatchResult(status=status_of_answer(answer), body=answer)


def failed(error: Exception) -> BatchResult:
    """What an operation is told that came upon a mistake of ours."""
    _log.error("operation failed", exc_info=error)
    problem = refuse(ErrorCode.INTERNAL, "the service failed; its log says why").problem
    return BatchResult(status=problem.status, body=problem)
