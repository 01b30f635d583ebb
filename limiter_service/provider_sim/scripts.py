"""Scripts of answers as they are when nothing goes wrong."""

from collections.abc import Iterator

from limiter_service.provider_sim.dialects import Dialect, Frame, Place, Request
from limiter_service.provider_sim.dialects.gemini import ARRAY
from limiter_service.provider_sim.faults.script import Head, Script, Send, Step
from limiter_service.provider_sim.problems import ErrorAnswer
from limiter_service.provider_sim.provider import Reply

JSON = "application/json"


def error_script(answer: ErrorAnswer, headers: dict[str, str]) -> Script:
    """An error, at once."""
    head = Head(
        status=answer.status,
        media_type=answer.media_type,
        headers={**headers, **answer.headers},
        length=len(answer.body),
    )
    return Script(head=head, steps=iter([Send(answer.body, 0.0)]))


def answer_script(
    dialect: Dialect, request: Request, reply: Reply, headers: dict[str, str]
) -> Script:
    """An answer: a stream from the start on, or a body when all of it is there."""
    if request.stream:
        media_type = JSON if ARRAY in request.options else dialect.STREAM_TYPE
        head = Head(status=200, media_type=media_type, headers=headers)
        return Script(head=head, steps=paced(dialect.frames(request, reply), reply))
    body, at = dialect.plain(request, reply), reply.duration
    head = Head(status=200, media_type=JSON, headers=headers, length=len(body), at=at)
    return Script(head=head, steps=iter([Send(body, at, tokens=reply.output_tokens)]))


def paced(frames: Iterator[Frame], reply: Reply) -> Iterator[Step]:
    """Frames at their times: the opening at once, then the output at an even pace."""
    gap = (reply.duration - reply.first_token) / max(1, reply.output_tokens)
    tokens = 0
    for frame in frames:
        at = 0.0 if frame.place is Place.OPENING else reply.first_token + tokens * gap
        yield Send(frame.data, at, frame.place, frame.tokens)
        tokens += frame.tokens
