"""Messages of the channel: what a client sends, and how it is answered. Pure.

A binary message is msgpack, a text message JSON; it holds one frame or an array of them.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum, StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from limiter_service import stencil
from limiter_service.engine.refusals import Refusal
from limiter_service.engine.shape import Taken
from limiter_service.http import JSON, MSGPACK, Media, Message, Reader, encode
from limiter_wire import Acquire, BatchResult, Operation, Settle, Settled, Wire

MOST_FRAMES = 256
"""Frames in one message: as many as operations in a batch."""

NEWS = 102
"""The status of a frame that says where a caller stands: its answer is still to come."""

RECALL = 205
"""The status of a frame that follows the answer to a block: it is to be given back."""

_TEXT, _BINARY = Media(JSON, JSON), Media(MSGPACK, MSGPACK)
_MSGPACK_ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
_MOST_OF_A_REASON = 123  # bytes: what a close frame has room for

Id = int | str
_Id = (
    Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    | Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
)


class Closing(IntEnum):
    """Why the service closes a channel, as the codes of RFC 6455."""

    UNREADABLE = 1007
    MISUSED = 1008
    TOO_LARGE = 1009
    RESTARTING = 1012


class Closed(Exception):  # what happens next
    """The channel cannot go on; `code` and `reason` are for the client."""

    def __init__(self, code: Closing, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:_MOST_OF_A_REASON].decode(errors="ignore")


class Verb(StrEnum):
    """What a frame asks for: an operation, or to forget one."""

    ACQUIRE = Operation.ACQUIRE.value
    SETTLE = Operation.SETTLE.value
    RENEW = Operation.RENEW.value
    CHECK = Operation.CHECK.value
    OBSERVE = Operation.OBSERVE.value
    CANCEL = "cancel"


_ACQUIRE, _SETTLE, _CANCEL = Verb.ACQUIRE, Verb.SETTLE, Verb.CANCEL


class Style(msgspec.Struct, frozen=True):
    """How a frame came, and how it is therefore answered."""

    kind: Media
    in_array: bool


class Frame(msgspec.Struct, frozen=True):
    """One request: what the route of the operation takes, and more; `body`, or `request` where it
    was read already.

    `waits` when it may take as long as its caller has patience; `news` when the caller wants to
    know meanwhile where it stands.
    """

    id: Id
    verb: Verb
    body: msgspec.Raw
    style: Style
    waits: bool
    news: bool
    request: Acquire | Settle | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a frame is told."""

    id: Id
    style: Style
    result: BatchResult


class Ready(msgspec.Struct, frozen=True):
    """The same, as it will be sent."""

    style: Style
    frame: msgspec.Raw


class _Head(Wire, frozen=True, kw_only=True):
    id: _Id
    op: Verb
    max_wait: Any = None
    news: Any = None


class _Named(Wire, frozen=True, kw_only=True):
    id: _Id


class _Acquire(Acquire, frozen=True, kw_only=True, tag_field="op", tag=str(Verb.ACQUIRE)):
    id: _Id
    news: Any = None


class _Settle(Settle, frozen=True, kw_only=True, tag_field="op", tag=str(Verb.SETTLE)):
    id: _Id


class _Cancel(Wire, frozen=True, kw_only=True, tag_field="op", tag=str(Verb.CANCEL)):
    id: _Id


_array, _head, _named = Reader(list[msgspec.Raw]), Reader(_Head), Reader(_Named)
_usual: dict[Media, Callable[[bytes], list[_Acquire | _Settle | _Cancel]]] = {
    _BINARY: msgspec.msgpack.Decoder(list[_Acquire | _Settle | _Cancel]).decode,
    _TEXT: msgspec.json.Decoder(list[_Acquire | _Settle | _Cancel]).decode,
}
_NOTHING = msgspec.Raw()
_style_of = attrgetter("style")


def read(message: bytes | str) -> list[Frame | Answer]:
    """The frames of a message, and the answers to those that cannot be served.

    Raises Closed when there is nobody to answer.
    """
    data, kind = (message, _BINARY) if isinstance(message, bytes) else (message.encode(), _TEXT)
    style = Style(kind, _is_array(data, kind))
    if not style.in_array:
        return [_frame(msgspec.Raw(data), style)]
    try:
        frames = _usual[kind](data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _one_by_one(data, style)
    _refuse_too_many(len(frames))
    return [_read(each, style) for each in frames]


def _read(frame: _Acquire | _Settle | _Cancel, style: Style) -> Frame:
    """A frame of which everything is read already."""
    if isinstance(frame, _Acquire):
        waits = frame.max_wait > 0
        news = waits and frame.news is True
        return Frame(frame.id, _ACQUIRE, _NOTHING, style, waits, news, frame)
    if isinstance(frame, _Settle):
        return Frame(frame.id, _SETTLE, _NOTHING, style, False, False, frame)
    return Frame(frame.id, _CANCEL, _NOTHING, style, False, False)


def _one_by_one(data: bytes, style: Style) -> list[Frame | Answer]:
    """The same where some frame is unusual, or cannot be served: the others can."""
    kind = style.kind
    try:
        bodies: list[msgspec.Raw] = _array.read(data, kind.body)
    except Refusal as refusal:
        raise Closed(Closing.UNREADABLE, refusal.problem.detail) from refusal
    _refuse_too_many(len(bodies))
    return [_frame(body, style) for body in bodies]


def _refuse_too_many(count: int) -> None:
    if count > MOST_FRAMES:
        raise Closed(Closing.MISUSED, f"a message has at most {MOST_FRAMES} frames")


def ready(frame: Frame, answer: Taken | Wire, told: stencil.Told | None = None) -> Ready | None:
    """The answer to *frame* as it will be sent, if there is a stencil for that; brief about limits
    that the channel was *told* of, where it wants that.
    """
    if frame.style.kind is not _BINARY:
        return None
    said: bytes | None = None
    if isinstance(answer, Taken):
        say = stencil.frame if told is None else told.frame
        said = say(frame.id, answer)
    elif type(answer) is Settled:
        said = stencil.settled_frame(frame.id, answer)
    return None if said is None else Ready(frame.style, msgspec.Raw(said))


def write(answers: Sequence[Answer | Ready]) -> Iterator[Message]:
    """The messages that carry *answers*: those to arrays in arrays, the others alone."""
    for style, alike in groupby(answers, _style_of):
        frames = [each.frame if type(each) is Ready else _fields(each) for each in alike]
        if not style.in_array:
            yield from (_message(frame, style.kind) for frame in frames)
            continue
        for first in range(0, len(frames), MOST_FRAMES):
            yield _message(frames[first : first + MOST_FRAMES], style.kind)


def _is_array(data: bytes, kind: Media) -> bool:
    if kind is _TEXT:
        return data.lstrip()[:1] == b"["
    return data[:1] != b"" and data[0] in _MSGPACK_ARRAYS


def _frame(body: msgspec.Raw, style: Style) -> Frame | Answer:
    try:
        head: _Head = _head.read(body, style.kind.body)
    except Refusal as refusal:
        problem = refusal.problem
        return Answer(_id(body, style), style, BatchResult(status=problem.status, body=problem))
    patience = head.max_wait if isinstance(head.max_wait, int | float) else 0
    waits = head.op is Verb.ACQUIRE and patience > 0
    return Frame(head.id, head.op, body, style, waits, waits and head.news is True)


def _id(body: msgspec.Raw, style: Style) -> Id:
    try:
        named: _Named = _named.read(body, style.kind.body)
    except Refusal as refusal:
        detail = f"a frame without a readable id: {refusal.problem.detail}"
        raise Closed(Closing.UNREADABLE, detail) from refusal
    return named.id


def _fields(answer: Answer | Ready) -> object:
    """The frame: id and status, then the fields of the body as its route would send them."""
    assert isinstance(answer, Answer)
    body, status = answer.result.body, answer.result.status
    frame = _framed(type(body))
    if frame is None:
        return {"id": answer.id, "status": status, **msgspec.to_builtins(body)}
    return frame(answer.id, status, *msgspec.structs.astuple(body))


_frames: dict[type, Callable[..., msgspec.Struct] | None] = {}


def _framed(kind: type) -> Callable[..., msgspec.Struct] | None:
    """What makes frames of answers of a type: they are encoded several times as fast as what is
    put together field by field. None where that says something else than the route does.
    """
    if kind not in _frames:
        config, fields = kind.__struct_config__, msgspec.structs.fields(kind)  # type: ignore[attr-defined]  # a struct
        names = ("id", "status", *(field.name for field in fields))
        same = all(field.name == field.encode_name for field in fields)
        usual = same and not config.omit_defaults and not config.tag and len({*names}) == len(names)
        made = (
            msgspec.defstruct(f"{kind.__name__}Frame", [(n, Any) for n in names]) if usual else None
        )
        _frames[kind] = made
    return _frames[kind]


def _message(value: object, kind: Media) -> Message:
    data = encode(value, kind.answer)
    if kind is _TEXT:
        return {"type": "websocket.send", "text": data.decode()}
    return {"type": "websocket.send", "bytes": data}
