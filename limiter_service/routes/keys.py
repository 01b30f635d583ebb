"""/v1/keys: make API keys, list them, revoke them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from limiter_service.door import caller_of, needs
from limiter_service.engine.keyring import Keyring
from limiter_service.http import JSON, Reader, encode, media, refuse_media
from limiter_service.openapi import answers, takes
from limiter_service.routes.audit import audit
from limiter_wire import NewKey, Role

# Who makes keys could make one without bounds: a key that has some may not.
router = APIRouter(tags=["keys"], dependencies=[needs(Role.ADMIN, everywhere=True)])
_reader = Reader(NewKey)

KeyId = Annotated[str, Path(max_length=32, pattern=r"^[0-9a-z]+$")]
Why = Annotated[str, Query(max_length=500, description="Told in the events and in the log")]


@router.get("/v1/keys", responses=answers("KeyList", 503))
async def keys(request: Request) -> Response:
    """Every key: whose it is and what it may do, never its secret."""
    return _answer(await _keyring(request).listed())


@router.post(
    "/v1/keys",
    responses=answers("CreatedKey", 400, 408, 415, 422, 503),
    openapi_extra=takes("NewKey"),
)
async def create(request: Request) -> Response:
    """Make a key. The answer is the only one that ever shows it."""
    kind = media(request.scope)
    refuse_media(kind)
    order: NewKey = _reader.read(await request.body(), kind.body)
    created = await _keyring(request).create(order, caller_of(request.scope).actor)
    audit(request, "key.create", f"{created.name} ({created.id})", order.reason)
    return _answer(created)


@router.delete("/v1/keys/{key_id}", responses=answers("KeyView", 404, 422, 503))
async def revoke(request: Request, key_id: KeyId, reason: Why = "") -> Response:
    """Revoke a key: every replica refuses it within a second, and ends its connections."""
    view = await _keyring(request).revoke(key_id, caller_of(request.scope).actor, reason)
    audit(request, "key.revoke", f"{view.name} ({view.id})", reason)
    return _answer(view)


def _keyring(request: Request) -> Keyring:
    keyring: Keyring = request.app.state.keyring
    return keyring


def _answer(value: object) -> Response:
    return Response(encode(value, JSON), media_type=JSON)
