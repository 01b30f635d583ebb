"""POST /v1/acquire: reserve budget."""

import msgspec

from limiter_service.engine.admission import Engine
from limiter_service.engine.refusals import refuse
from limiter_service.http import Media, Reader, Scope, header, while_connected
from limiter_wire import Acquire, ErrorCode, Granted, Waiting

_reader = Reader(Acquire)


async def acquire(
    engine: Engine, body: bytes | msgspec.Raw, kind: Media, scope: Scope
) -> Granted | Waiting:
    """Read the request, with `Idempotency-Key` in place of `request_id`, and acquire.

    A request that waits is held while its caller is connected.
    """
    request: Acquire = _reader.read(body, kind.body)
    request = _with_key(request, header(scope, b"idempotency-key"))
    if request.max_wait <= 0:
        return await engine.acquire(request)
    return await while_connected(engine.acquire(request, request.hold), scope)


async def acquire_in_batch(
    engine: Engine, body: bytes | msgspec.Raw, kind: Media, _scope: Scope
) -> Granted | Waiting:
    """The same beside other operations, which must not wait for it: it is never held."""
    return await engine.acquire(_reader.read(body, kind.body), hold=0.0)


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
