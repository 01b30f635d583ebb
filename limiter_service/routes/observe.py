"""POST /v1/observe: what a provider said to a call without a lease."""

import msgspec

from limiter_service.door import caller_of
from limiter_service.engine.admission import Engine
from limiter_service.http import Media, Reader, Scope
from limiter_wire import Noticed, Observe

_reader = Reader(Observe)


async def observe(engine: Engine, body: bytes | msgspec.Raw, kind: Media, scope: Scope) -> Noticed:
    """Read the report and take it in."""
    report: Observe = _reader.read(body, kind.body)
    caller_of(scope).reaches_pool(report.resource.partition("/")[0])
    return await engine.learning.observe(report)
