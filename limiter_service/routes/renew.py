"""POST /v1/renew: keep a lease alive."""

import msgspec

from limiter_service.door import caller_of
from limiter_service.engine.admission import Engine
from limiter_service.http import Media, Reader, Scope
from limiter_wire import Renew, Renewed

_reader = Reader(Renew)


async def renew(engine: Engine, body: bytes | msgspec.Raw, kind: Media, scope: Scope) -> Renewed:
    """Read the report and renew the lease."""
    report: Renew = _reader.read(body, kind.body)
    caller_of(scope).reaches_lease(report.lease)
    return await engine.renew(report)
