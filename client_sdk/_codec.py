"""Operations as bytes, answers as values or exceptions. Pure."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from client_sdk.errors import ServiceFault, SluicegateError, error_of
from limiter_wire import (
    Acquire,
    BlockReport,
    BreakerView,
    Checked,
    Granted,
    Noticed,
    Observe,
    Operation,
    Outcome,
    Problem,
    Recalled,
    Renew,
    Renewed,
    Settle,
    Settled,
    Stats,
    Usage,
    Waiting,
)

T = TypeVar("T")
Request = Acquire | Settle | Renew | Observe

NEWS, RECALL, _OK, _ACCEPTED = 102, 205, 200, 202
_encode = msgspec.msgpack.Encoder().encode
_waiting = msgspec.msgpack.Decoder(Waiting).decode
_recalled = msgspec.msgpack.Decoder(Recalled).decode
_problem = msgspec.msgpack.Decoder(Problem).decode
_ANSWERS: dict[Operation, Any] = {
    Operation.ACQUIRE: msgspec.msgpack.Decoder(Granted).decode,
    Operation.SETTLE: msgspec.msgpack.Decoder(Settled).decode,
    Operation.RENEW: msgspec.msgpack.Decoder(Renewed).decode,
    Operation.CHECK: msgspec.msgpack.Decoder(Checked).decode,
    Operation.OBSERVE: msgspec.msgpack.Decoder(Noticed).decode,
}


_VIEWS: dict[type, Any] = {
    BreakerView: msgspec.json.Decoder(BreakerView).decode,
    Stats: msgspec.json.Decoder(Stats).decode,
}
_json_problem = msgspec.json.Decoder(Problem).decode


class Op(msgspec.Struct):
    """One operation. `waits` is how many seconds longer than others it may take; *news* hears
    on a channel where it stands meanwhile. `asked` says that the service may know of it.
    """

    operation: Operation
    fields: dict[str, object]
    request_id: str | None
    waits: float
    news: Callable[[Waiting], None] | None = None
    asked: bool = False
    _body: bytes = b""

    @property
    def path(self) -> str:
        """The route that takes this operation alone."""
        return f"/v1/{self.operation}"

    @property
    def headers(self) -> dict[str, str]:
        """What that route is told beside the body: the trace, for whoever stands between."""
        traceparent = self.fields.get("traceparent")
        return {"traceparent": traceparent} if isinstance(traceparent, str) else {}

    @property
    def body(self) -> bytes:
        """What that route takes, encoded once however often it is sent."""
        if not self._body:
            self._body = _encode(self.fields)
        return self._body

    def frame(self, name: int) -> bytes:
        """The operation on a channel, under the id *name*."""
        if self.news is None:
            return _encode({"id": name, **self.fields})
        held = {field: value for field, value in self.fields.items() if field != "hold"}
        return _encode({"id": name, "news": True, **held})


class _Result(msgspec.Struct, frozen=True):
    status: int
    body: msgspec.Raw


class _Heard(msgspec.Struct, frozen=True):
    id: int
    status: int


class _Results(msgspec.Struct, frozen=True):
    results: list[_Result]


_results = msgspec.msgpack.Decoder(_Results).decode
_frames = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_heard = msgspec.msgpack.Decoder(_Heard).decode


def _usual(kind: type[Request]) -> dict[str, object]:
    """The values of fields that need not be sent."""
    every = msgspec.structs.fields(kind)
    return {each.name: each.default for each in every if each.default is not msgspec.NODEFAULT}


_USUAL = {kind: _usual(kind) for kind in (Acquire, Settle, Renew, Observe)}


def op(
    operation: Operation, request: Request, waits: float = 0.0, traceparent: str | None = None
) -> Op:
    """*request* as an operation; fields that say what the service takes for granted stay out."""
    usual = _USUAL[type(request)]
    fields: dict[str, object] = {
        name: value
        for name, value in msgspec.structs.asdict(request).items()
        if value is not None and value != usual.get(name)
    }
    fields["op"] = operation
    if traceparent is not None:
        fields["traceparent"] = traceparent
    return Op(operation, fields, getattr(request, "request_id", None), waits)


def give_back(granted: Granted) -> Op:
    """The report on a lease that nobody wants: nothing was used."""
    report = Settle(lease=granted.lease, outcome=Outcome.CANCELLED, usage=Usage())
    if granted.block is not None:
        report = Settle(lease=granted.lease, block=BlockReport(number=1, stage="ended"))
    return op(Operation.SETTLE, report)


def batch(ops: Sequence[Op]) -> bytes:
    """The body of /v1/batch for *ops*."""
    return _encode({"ops": [msgspec.Raw(each.body) for each in ops]})


def cancellation(name: int) -> bytes:
    """The frame that calls off the operation *name*."""
    return _encode({"id": name, "op": "cancel"})


def message(frames: Sequence[bytes]) -> bytes:
    """One message of a channel."""
    return _encode([msgspec.Raw(frame) for frame in frames])


def heard(message: bytes) -> Iterator[tuple[int, int, msgspec.Raw]]:
    """Id, status and body of every answer in *message*. Raises MsgspecError."""
    for body in _frames(message):
        head = _heard(body)
        yield head.id, head.status, body


def recalled(body: bytes | msgspec.Raw) -> str:
    """The resource whose blocks are to be given back. Raises MsgspecError."""
    return _recalled(body).resource


def answer(of: Op, status: int, body: bytes | msgspec.Raw) -> Any | SluicegateError:  # by operation
    """The value that the service answered, or the exception for its refusal."""
    try:
        if status == _OK:
            return _ANSWERS[of.operation](body)
        if status in {NEWS, _ACCEPTED}:
            return _waiting(body)
        return error_of(_problem(body), of.operation, of.request_id)
    except msgspec.MsgspecError as error:
        shown = bytes(body)[:80]
        return ServiceFault(f"status {status} with a body that is no answer: {shown!r} ({error})")


def refusal_of(body: bytes) -> SluicegateError | None:
    """The exception for a problem in JSON; None when it is none."""
    try:
        return error_of(_json_problem(body), "channel", None)
    except msgspec.MsgspecError:
        return None


def view(kind: type[T], status: int, body: bytes) -> T:
    """What a route for reading has answered. Raises the exception for its refusal."""
    try:
        if status == _OK:
            seen: T = _VIEWS[kind](body)
            return seen
        refusal = error_of(_json_problem(body), "look", None)
    except msgspec.MsgspecError as error:
        shown = body[:80]
        message = f"status {status} with a body that is no answer: {shown!r} ({error})"
        raise ServiceFault(message) from error
    raise refusal


def answers(ops: Sequence[Op], status: int, body: bytes) -> list[Any]:
    """One value or exception per operation of a batch."""
    if status != _OK:
        return [answer(each, status, body) for each in ops]
    try:
        results = _results(body).results
    except msgspec.MsgspecError as error:
        fault = ServiceFault(f"the answer to a batch cannot be read: {error}")
        return [fault] * len(ops)
    if len(results) != len(ops):
        fault = ServiceFault(f"{len(results)} answers to {len(ops)} operations")
        return [fault] * len(ops)
    return [answer(each, r.status, r.body) for each, r in zip(ops, results, strict=True)]
