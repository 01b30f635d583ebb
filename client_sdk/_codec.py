"""Operations as bytes. What they are answered is in `_answers`. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import asdict, force_setattr, replace

from limiter_wire import (
    Acquire,
    BlockReport,
    Observe,
    Operation,
    Outcome,
    Renew,
    Settle,
    Usage,
    Waiting,
)

Request = Acquire | Settle | Renew | Observe

AT_ONCE: Final[float] = Acquire(resource="").max_wait
"""The `max_wait` that stays out of messages: msgspec leaves out the very object, not its equal."""

_NOBODY = -1
_FIXED_ARRAY = 16  # shorter arrays of msgpack say their length in their first byte
_encode = msgspec.msgpack.Encoder().encode

# Each kind of request as it travels: what the service takes for granted stays out, and so does
# an `id` that says nobody. What is made as one of these in the first place is not copied.


class AcquireOp(
    Acquire, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="acquire"
):
    """An acquire. With `news` a channel says meanwhile where it stands."""

    id: int = _NOBODY
    news: bool = False


class CheckOp(Acquire, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="check"):
    """A check."""

    id: int = _NOBODY


class SettleOp(Settle, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="settle"):
    """A settle."""

    id: int = _NOBODY


class RenewOp(Renew, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="renew"):
    """A renewal."""

    id: int = _NOBODY


class ObserveOp(
    Observe, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="observe"
):
    """What a provider has said."""

    id: int = _NOBODY
    traceparent: str | None = None


_KINDS: dict[Operation, Any] = {
    Operation.ACQUIRE: AcquireOp,
    Operation.CHECK: CheckOp,
    Operation.SETTLE: SettleOp,
    Operation.RENEW: RenewOp,
    Operation.OBSERVE: ObserveOp,
}


class Op(msgspec.Struct, eq=False):
    """One operation: *request* is of the kind that travels. `waits` is how many seconds longer
    than others it may take; *news* hears on a channel where it stands meanwhile. `asked` says that
    the service may know of it.

    While it is under way, *waiter* is who is told next, if anybody is. On a channel it has the id
    `name`, and was sent at `sent_at`.
    """

    operation: Operation
    request: Any
    waits: float = 0.0
    news: Callable[[Waiting], None] | None = None
    asked: bool = False
    waiter: Any = None
    name: int = 0
    sent_at: float | None = None
    _body: bytes = b""

    @property
    def request_id(self) -> str | None:
        """What the caller calls it, when it is an acquire."""
        return getattr(self.request, "request_id", None)

    @property
    def path(self) -> str:
        """The route that takes this operation alone."""
        return f"/v1/{self.operation}"

    @property
    def headers(self) -> dict[str, str]:
        """What that route is told beside the body: the trace, for whoever stands between."""
        traceparent = self.request.traceparent
        return {} if traceparent is None else {"traceparent": traceparent}

    @property
    def body(self) -> bytes:
        """What that route takes, encoded once however often it is sent."""
        if not self._body:
            force_setattr(self.request, "id", _NOBODY)
            self._body = _encode(self.request)
        return self._body

    def frame(self, name: int) -> bytes:
        """The operation on a channel, under the id *name*. Raises what encoding raises."""
        self.name = name
        return _encode(*_travelling([self]))


def op(
    operation: Operation, request: Request, waits: float = 0.0, traceparent: str | None = None
) -> Op:
    """*request* as an operation."""
    kind = _KINDS[operation]
    if type(request) is not kind:
        request = kind(**asdict(request))
    if traceparent is not None:
        request = replace(request, traceparent=traceparent)
    return Op(operation, request, waits)


def give_back(lease: str, *, block: bool) -> Op:
    """The report on a lease that nobody wants: nothing was used."""
    report = SettleOp(lease=lease, outcome=Outcome.CANCELLED, usage=Usage())
    if block:
        report = SettleOp(lease=lease, block=BlockReport(number=1, stage="ended"))
    return Op(Operation.SETTLE, report)


def batch(ops: Sequence[Op]) -> bytes:
    """The body of /v1/batch for *ops*."""
    return _encode({"ops": [msgspec.Raw(each.body) for each in ops]})


def cancellation(name: int) -> bytes:
    """The frame that calls off the operation *name*."""
    return _encode(_cancellation(name))


def _cancellation(name: int) -> dict[str, Any]:
    return {"id": name, "op": "cancel"}


def together(cancelled: Sequence[int], ops: Sequence[Op]) -> bytes:
    """One message of a channel, which calls off the operations *cancelled*. Raises what encoding
    raises.
    """
    return _encode([*map(_cancellation, cancelled), *_travelling(ops)])


def _travelling(ops: Iterable[Op]) -> list[Any]:
    """Their requests as they are to be encoded, at once, under their names."""
    found = []
    for each in ops:
        request = each.request
        if each.news is not None:
            request = replace(request, news=True, hold=None)
        # Only who encodes it looks at its id: no copy is worth making.
        force_setattr(request, "id", each.name)
        found.append(request)
    return found


def message(frames: Sequence[bytes]) -> bytes:
    """One message of a channel, of frames: an array of msgpack."""
    count = len(frames)
    head = bytes((0x90 | count,)) if count < _FIXED_ARRAY else b"\xdc" + count.to_bytes(2, "big")
    return b"".join((head, *frames))
