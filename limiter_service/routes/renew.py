"""POST /v1/renew: keep a lease alive."""

import msgspec

from limiter_service.engine.admission import Engine
from limiter_service.http import Media, Reader, Scope
from limiter_wire import Renew, Renewed

_reader = Reader(Renew)


async def renew(engine: Engine, body: bytes | msgspec.Raw, kind: Media, _scope: Scope) -> Renewed:
    """Read the report and renew the lease."""
    report: Renew = _reader.read(body, kind.body)
    return await engine.renew(report)
