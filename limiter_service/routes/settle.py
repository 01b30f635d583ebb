"""POST /v1/settle: replace a reservation by what was used."""

import msgspec

from limiter_service.door import caller_of
from limiter_service.engine.admission import Engine
from limiter_service.http import Media, Reader, Scope
from limiter_service.routes.swift import BEGUN
from limiter_wire import Settle, Settled

_reader = Reader(Settle)


async def settle(engine: Engine, body: bytes | msgspec.Raw, kind: Media, scope: Scope) -> Settled:
    """Read the report and settle the lease."""
    report: Settle = _reader.read(body, kind.body)
    caller_of(scope).reaches_lease(report.lease)
    return await engine.settle(report, scope.get(BEGUN))
