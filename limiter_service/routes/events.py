"""GET /v1/events: what happens, as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from limiter_service.door import caller_of, needs
from limiter_service.engine.callers import Caller
from limiter_service.engine.feed import Cursor, Feed, cursor_of, text_of
from limiter_service.engine.refusals import refuse
from limiter_service.openapi import streams
from limiter_service.stopping import stopping
from limiter_service.store.errors import StoreError
from limiter_wire import ErrorCode, Event, Role

router = APIRouter(tags=["events"])

_encode = msgspec.json.Encoder().encode
_TICK = 0.5  # seconds until a listener notices that the process is asked to stop
_HEARTBEAT = 15.0  # proxies close what says nothing for long
_RETRY_MS = 2000


@router.get(
    "/v1/events",
    response_class=StreamingResponse,
    responses=streams(("Event",), 422, 503),
    dependencies=[needs(Role.READ)],
)
async def events(
    request: Request,
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=16_000,
            description="Go on after this event; `0`: from the oldest that is kept",
        ),
    ] = None,
    *,
    follow: Annotated[
        bool, Query(description="Wait for further events; false: end with those there are")
    ] = True,
) -> Response:
    """Transitions of breakers, overrides, cooldowns and latches of the whole fleet, each once."""
    feed: Feed = request.app.state.feed
    caller = caller_of(request.scope)
    cursor = cursor_of(last_event_id)
    try:
        cursor = await feed.now(caller.hears_of) if cursor is None else cursor
    except StoreError as error:
        message = f"the store did not answer: {error}"
        raise refuse(ErrorCode.STORE_UNAVAILABLE, message, retry_after=1.0) from error
    return StreamingResponse(
        _blocks(feed, cursor, caller, follow=follow),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _blocks(
    feed: Feed, cursor: Cursor, caller: Caller, *, follow: bool
) -> AsyncIterator[bytes]:
    # An id without data is remembered and dispatches nothing: who is cut off before the
    # first event goes on from here.
    yield f"retry: {_RETRY_MS}\nid: {text_of(cursor)}\n\n".encode()
    silent = 0.0
    async for event in feed.follow(cursor, _TICK, caller.hears_of):
        if caller.why_ended is not None:
            return
        if event is not None:
            silent = 0.0
            yield _block(event, cursor)
            continue
        if not follow or stopping():
            return
        silent += _TICK
        if silent >= _HEARTBEAT:
            silent = 0.0
            yield b": still here\n\n"


def _block(event: Event, cursor: Cursor) -> bytes:
    head = f"id: {text_of(cursor)}\nevent: {event.type}\ndata: ".encode()
    return head + _encode(event) + b"\n\n"
