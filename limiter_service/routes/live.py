"""GET /v1/live: how everything stands, every second, and what happens meanwhile."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from limiter_service import squeeze
from limiter_service.door import caller_of, needs
from limiter_service.engine.broadcast import Broadcast, Message
from limiter_service.engine.callers import Caller
from limiter_service.engine.sight import hears, moment_for, past_for
from limiter_service.openapi import streams
from limiter_service.stopping import stopping
from limiter_wire import Event, Live, Past, Role

router = APIRouter(tags=["live"])

_encode = msgspec.json.Encoder().encode
_TICK = 0.5  # seconds until a watcher notices that the process is asked to stop
_RETRY_MS = 2000
_GZIP = "gzip"


@router.get(
    "/v1/live",
    response_class=StreamingResponse,
    responses=streams(("Past", "Event", "Live"), 422),
    dependencies=[needs(Role.READ)],
)
async def live(
    request: Request,
    *,
    follow: Annotated[
        bool, Query(description="Go on every second; false: end with the first moment")
    ] = True,
) -> Response:
    """What a dashboard shows, as server-sent events: once `past` (`Past`), `happened` (`Event`)
    for each of the last events and of those that follow, and every second `live` (`Live`).
    """
    broadcast: Broadcast = request.app.state.broadcast
    headers = {"cache-control": "no-store", "x-accel-buffering": "no", "vary": "accept-encoding"}
    blocks = _blocks(broadcast, caller_of(request.scope), follow=follow)
    if squeeze.accepts(request.headers.get("accept-encoding")):
        headers["content-encoding"] = "gzip"
        told = _squeezed(blocks)
    else:
        told = _plain(blocks)
    return StreamingResponse(told, media_type="text/event-stream", headers=headers)


Block = tuple[bytes, Message | None]
"""Text to send, and the message that it is, where it is the same for every reader."""


async def _plain(blocks: AsyncGenerator[Block]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(blocks):
        async for text, _ in blocks:
            yield text


async def _squeezed(blocks: AsyncGenerator[Block]) -> AsyncIterator[bytes]:
    stream = squeeze.Squeezed()
    yield stream.begin()
    async with contextlib.aclosing(blocks):
        async for text, message in blocks:
            if message is None:
                yield stream.add(text)
                continue
            packed = message.shared.get(_GZIP)
            if packed is None:
                packed = message.shared[_GZIP] = squeeze.pack(text)
            yield stream.add(text, packed)
    yield stream.end()


async def _blocks(broadcast: Broadcast, caller: Caller, *, follow: bool) -> AsyncGenerator[Block]:
    yield f"retry: {_RETRY_MS}\n\n".encode(), None
    async with contextlib.aclosing(broadcast.follow(_TICK)) as told:
        async for message in told:
            if stopping() or caller.why_ended is not None:
                return
            if message is None:
                yield b": nothing new\n\n", None
                continue
            data = _seen_by(caller, message.value) if caller.bound else message.data
            if data is not None:
                text = b"event: " + message.about.encode() + b"\ndata: " + data + b"\n\n"
                yield text, None if caller.bound else message
            if message.about == "live" and not follow:
                return


def _seen_by(caller: Caller, value: Live | Past | Event) -> bytes | None:
    """What a bound caller is told, as JSON; None for an event that is not its business."""
    match value:
        case Live():
            return _encode(moment_for(caller, value))
        case Past():
            return _encode(past_for(caller, value))
        case _:
            return _encode(value) if hears(caller, value) else None
