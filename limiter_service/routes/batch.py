"""POST /v1/batch: operations side by side; one that fails does not fail the rest."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec
import structlog

from limiter_service import stencil
from limiter_service.door import CALLER
from limiter_service.engine.admission import Engine
from limiter_service.engine.begun import Arrivals, Begun, BegunAcquire, BegunSettle
from limiter_service.engine.callers import Caller
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.engine.shape import Taken
from limiter_service.http import MSGPACK, Media, Reader, Scope, status_of_answer
from limiter_service.routes.acquire import acquire_in_batch
from limiter_service.routes.check import check
from limiter_service.routes.observe import observe
from limiter_service.routes.renew import renew
from limiter_service.routes.settle import settle
from limiter_service.routes.swift import begin, conclude
from limiter_wire import (
    Acquire,
    BatchAnswer,
    BatchResult,
    ErrorCode,
    Operation,
    Settle,
    Wire,
)

_RUN: dict[Operation, Callable[..., Awaitable[Wire]]] = {
    Operation.ACQUIRE: acquire_in_batch,
    Operation.SETTLE: settle,
    Operation.RENEW: renew,
    Operation.CHECK: check,
    Operation.OBSERVE: observe,
}
_log = structlog.get_logger()


_SOME = msgspec.Meta(min_length=1, max_length=256)


class _Batch(Wire, frozen=True, kw_only=True):
    ops: Annotated[list[msgspec.Raw], _SOME]


class _Acquire(Acquire, frozen=True, kw_only=True, tag_field="op", tag=str(Operation.ACQUIRE)):
    pass


class _Settle(Settle, frozen=True, kw_only=True, tag_field="op", tag=str(Operation.SETTLE)):
    pass


class _Usual(Wire, frozen=True, kw_only=True):
    ops: Annotated[list[_Acquire | _Settle], _SOME]


class _Tagged(Wire, frozen=True, kw_only=True):
    op: Operation


_batch_reader, _usual_reader = Reader(_Batch), Reader(_Usual)
_tag_reader = Reader(_Tagged)


async def batch(engine: Engine, body: bytes, kind: Media, scope: Scope) -> BatchAnswer:
    """Run every operation at once and answer in the order of the request."""
    try:
        usual: _Usual = _usual_reader.read(body, kind.body)
    except Refusal:
        return await _one_by_one(engine, body, kind, scope)
    return BatchAnswer(results=await _at_once(engine, scope[CALLER], usual.ops, kind))


async def _at_once(
    engine: Engine, caller: Caller, requests: Sequence[Acquire | Settle], kind: Media
) -> list[BatchResult]:
    """What comes of acquires and settles. Most are over with one answer of the store, and one task
    waits for all of those; the others have one each.
    """
    arrivals = Arrivals()
    work = [_start(engine, caller, request, arrivals) for request in requests]
    try:
        await arrivals.of(*[each for each in work if isinstance(each, Begun)])
        work = [_conclude(engine, each, kind) if isinstance(each, Begun) else each for each in work]
        results = [each for each in work if not isinstance(each, Begun)]
        return [await each if isinstance(each, asyncio.Task) else each for each in results]
    except asyncio.CancelledError:
        for each in work:
            if isinstance(each, asyncio.Task):
                each.cancel()
        raise


def _start(
    engine: Engine, caller: Caller, request: Acquire | Settle, arrivals: Arrivals
) -> Begun | BatchResult | asyncio.Task[BatchResult]:
    try:
        begun = begin(engine, caller, request, arrivals)
    except Refusal as refusal:
        return refused(refusal)
    except Exception as error:  # noqa: BLE001  # whatever it is: the others get their answers
        return failed(error)
    if begun is None:
        return asyncio.create_task(result_of(_await(engine, request)))
    return begun


def _conclude(engine: Engine, begun: Begun, kind: Media) -> BatchResult | asyncio.Task[BatchResult]:
    try:
        answer = conclude(engine, begun)
    except Refusal as refusal:
        return refused(refusal)
    except Exception as error:  # noqa: BLE001  # whatever it is: the others get their answers
        return failed(error)
    if answer is None:
        return asyncio.create_task(result_of(_go_on(engine, begun)))
    if isinstance(answer, Taken):
        whole = kind.answer != MSGPACK
        return BatchResult(
            status=200, body=answer.granted() if whole else msgspec.Raw(stencil.grant(answer))
        )
    return BatchResult(status=status_of_answer(answer), body=answer)


def _await(engine: Engine, request: Acquire | Settle) -> Awaitable[Wire]:
    """Nothing in a batch is held: others wait for it."""
    if isinstance(request, Acquire):
        return engine.acquire(request, hold=0.0)
    return engine.settle(request)


def _go_on(engine: Engine, begun: Begun) -> Awaitable[Wire]:
    """What takes longer than one answer of the store."""
    if isinstance(begun, BegunAcquire):
        return engine.acquire(begun.request, hold=0.0, begun=begun)
    assert isinstance(begun, BegunSettle)
    return engine.settle(begun.request, begun)


async def _one_by_one(engine: Engine, body: bytes, kind: Media, scope: Scope) -> BatchAnswer:
    """The same for other operations too, and where one cannot be read: the others can."""
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
        return refused(refusal)
    except Exception as error:  # noqa: BLE001  # whatever it is: the others get their answers
        return failed(error)
    return BatchResult(status=status_of_answer(answer), body=answer)


def refused(refusal: Refusal) -> BatchResult:
    """What an operation is told that is not served."""
    return BatchResult(status=refusal.problem.status, body=refusal.problem)


def failed(error: Exception) -> BatchResult:
    """What an operation is told that came upon a mistake of ours."""
    _log.error("operation failed", exc_info=error)
    problem = refuse(ErrorCode.INTERNAL, "the service failed; its log says why").problem
    return BatchResult(status=problem.status, body=problem)
