"""POST /v1/check: what an acquire would answer."""

import msgspec

from limiter_service.door import caller_of
from limiter_service.engine.admission import Engine
from limiter_service.http import Media, Reader, Scope
from limiter_wire import Acquire, Checked

_reader = Reader(Acquire)


async def check(engine: Engine, body: bytes | msgspec.Raw, kind: Media, scope: Scope) -> Checked:
    """Read the question and answer it; nothing changes."""
    request: Acquire = _reader.read(body, kind.body)
    caller_of(scope).reaches(request.resource, request.tenant)
    return await engine.check(request)
