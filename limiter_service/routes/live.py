"""GET /v1/live: how everything stands, every second, and what happens meanwhile."""

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from limiter_service.engine.broadcast import Broadcast
from limiter_service.openapi import streams
from limiter_service.stopping import stopping

router = APIRouter(tags=["live"])

_TICK = 0.5  # seconds until a watcher notices that the process is asked to stop
_RETRY_MS = 2000


@router.get(
    "/v1/live", response_class=StreamingResponse, responses=streams(("Past", "Event", "Live"), 422)
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
    return StreamingResponse(
        _blocks(broadcast, follow=follow),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _blocks(broadcast: Broadcast, *, follow: bool) -> AsyncIterator[bytes]:
    yield f"retry: {_RETRY_MS}\n\n".encode()
    async with contextlib.aclosing(broadcast.follow(_TICK)) as told:
        async for message in told:
            if stopping():
                return
            if message is None:
                yield b": nothing new\n\n"
                continue
            yield b"event: " + message.about.encode() + b"\ndata: " + message.data + b"\n\n"
            if message.about == "live" and not follow:
                return
