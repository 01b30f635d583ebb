"""Answers as values or exceptions. Pure.

Nearly every answer is a grant, or a settle that went well. All of those in a message are read in
one pass; what is anything else is read once more, for what it is.
"""

import struct
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from client_sdk._codec import Op
from client_sdk.errors import ServiceFault, SluicegateError, error_of
from limiter_wire import (
    BreakerView,
    Calibration,
    Checked,
    Granted,
    Lent,
    LimitState,
    Noticed,
    Operation,
    Problem,
    Recalled,
    Renewed,
    Settled,
    Stats,
    Waiting,
    brief,
)

T = TypeVar("T")

NEWS, RECALL, OK = 102, 205, 200
_ACQUIRE, _SETTLE = Operation.ACQUIRE, Operation.SETTLE  # to find them in their class takes longer
_ACCEPTED = 202
_limits = msgspec.msgpack.Decoder(list[LimitState]).decode
_NO_LIMITS = msgspec.Raw(b"\x90")


class Form(brief.Form):
    """Limits that a channel was told in full, for those that are said briefly after that."""

    unread: msgspec.Raw = _NO_LIMITS

    def limits(self, levels: bytes) -> list[LimitState]:
        """The same limits with these *levels*. Raises ValueError and struct.error."""
        known = _limits(self.unread)
        found = struct.unpack(f"<{len(known)}d", levels)
        return [
            msgspec.structs.replace(
                limit,
                remaining=brief.remaining(level),
                reset_after=brief.reset_after(level, *fill),
            )
            for limit, level, fill in zip(known, found, self.fills, strict=True)
        ]


def _formed(form: Form | None, levels: tuple[int, bytes]) -> list[LimitState]:
    if form is None:
        raise ValueError(f"form {levels[0]} was never told")
    return form.limits(levels[1])


Forms = dict[int, Form]
"""What a channel was told of limits, by the numbers that it finds them by."""


class Given(msgspec.Struct, kw_only=True, gc=False):
    """What was granted; its limits, which are most of it, are read when somebody looks. Where they
    are said briefly, `levels` names their form, and says what is in them.
    """

    lease: str
    expires_in: float
    waited: float = 0.0
    charged: dict[str, float] = {}
    unread: msgspec.Raw = msgspec.field(name="limits", default=_NO_LIMITS)
    levels: tuple[int, bytes] | None = None
    form: Form | None = None
    breaker: str = "closed"
    probe: bool = False
    suggested_max_tokens: int | None = None
    degraded: bool | msgspec.UnsetType = msgspec.UNSET
    settled: bool | None = None
    block: Lent | None = None

    @property
    def limits(self) -> list[LimitState]:
        """Every limit of the chain, just after the grant. Raises ServiceFault."""
        try:
            return _limits(self.unread) if self.levels is None else _formed(self.form, self.levels)
        except (ValueError, struct.error) as error:  # ValueError: of msgspec, too
            raise ServiceFault(f"the limits of a grant cannot be read: {error}") from error

    def whole(self) -> Granted:
        """All of it, as the service has said it. Raises ServiceFault."""
        return Granted(
            lease=self.lease,
            waited=self.waited,
            expires_in=self.expires_in,
            charged=self.charged,
            limits=self.limits,
            breaker=self.breaker,
            probe=self.probe,
            suggested_max_tokens=self.suggested_max_tokens,
            degraded=self.degraded is True,
            settled=self.settled is True,
            block=self.block,
        )

    def own(self) -> "Given":
        """Itself, no longer a part of its message, which is as large as all that came with it."""
        if self.levels is None:
            self.unread = self.unread.copy()
        return self

    def formed(self, forms: "Forms") -> None:
        """Take in its limits, or learn their form."""
        if self.levels is not None:
            self.form = forms.get(self.levels[0])
        elif self.form is not None:
            self.form.unread = self.unread.copy()
            forms[self.form.id] = self.form


class Heard(Given, kw_only=True, gc=False):
    """What an answer says if it is a grant or a settle; of anything else next to nothing."""

    lease: str = ""
    expires_in: float = 0.0
    already_settled: bool = False
    refunded: dict[str, float] | None = None
    debited: dict[str, float] | None = None
    calibration: Calibration | msgspec.UnsetType = msgspec.UNSET

    def usual(self, operation: Operation) -> "Given | Settled | None":
        """The answer to *operation*, None when its body has to be read for that."""
        if operation is _ACQUIRE and self.lease:
            if self.levels is None:
                self.unread = self.unread.copy()  # as `own` does
            return self
        if operation is _SETTLE and self.settled is not None:
            return Settled(
                settled=self.settled,
                already_settled=self.already_settled,
                refunded=self.refunded or {},
                debited=self.debited or {},
                breaker=self.breaker,
                calibration=self.calibration,
                degraded=self.degraded,
            )
        return None


class Frame(Heard, kw_only=True, gc=False):
    """The same on a channel."""

    id: int
    status: int


class _Head(msgspec.Struct):
    id: int
    status: int


class _Result(msgspec.Struct):
    status: int
    body: Heard


class _Results(msgspec.Struct):
    results: list[_Result]


class _RawResult(msgspec.Struct):
    status: int
    body: msgspec.Raw


class _RawResults(msgspec.Struct):
    results: list[_RawResult]


_frames = msgspec.msgpack.Decoder(list[Frame]).decode
_frame = msgspec.msgpack.Decoder(Frame).decode
_head = msgspec.msgpack.Decoder(_Head).decode
_bodies = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_results = msgspec.msgpack.Decoder(_Results).decode
_raw_results = msgspec.msgpack.Decoder(_RawResults).decode
_waiting = msgspec.msgpack.Decoder(Waiting).decode
_recalled = msgspec.msgpack.Decoder(Recalled).decode
_problem = msgspec.msgpack.Decoder(Problem).decode
_grant = msgspec.msgpack.Decoder(Given).decode
_ANSWERS: dict[Operation, Any] = {
    Operation.ACQUIRE: lambda body: _grant(body).own(),
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


def frames(message: bytes) -> list[Frame]:
    """What each answer in *message* says at first sight. Raises MsgspecError."""
    try:
        return _frames(message)
    except msgspec.ValidationError:  # one is odd, which is a matter of who has asked for it
        return [*map(_alone, _bodies(message))]


def _alone(body: msgspec.Raw) -> Frame:
    try:
        return _frame(body)
    except msgspec.ValidationError:
        head = _head(body)
        return Frame(id=head.id, status=head.status)


def bodies(message: bytes) -> list[msgspec.Raw]:
    """Each answer in *message* as it came. Raises MsgspecError."""
    return _bodies(message)


def recalled(body: bytes | msgspec.Raw) -> str:
    """The resource whose blocks are to be given back. Raises MsgspecError."""
    return _recalled(body).resource


def answer(of: Op, status: int, body: bytes | msgspec.Raw) -> Any | SluicegateError:  # by operation
    """The value that the service answered, or the exception for its refusal."""
    try:
        if status == OK:
            return _ANSWERS[of.operation](body)
        if status in {NEWS, _ACCEPTED}:
            return _waiting(body)
        return error_of(_problem(body), of.operation, of.request_id)
    except msgspec.MsgspecError as error:
        shown = bytes(body)[:80]
        return ServiceFault(f"status {status} with a body that is no answer: {shown!r} ({error})")


def answers(ops: Sequence[Op], status: int, body: bytes) -> list[Any]:
    """One value or exception per operation of a batch."""
    if status != OK:
        return [answer(each, status, body) for each in ops]
    try:
        told = _told(ops, body)
    except msgspec.MsgspecError as error:
        fault = ServiceFault(f"the answer to a batch cannot be read: {error}")
        return [fault] * len(ops)
    if len(told) != len(ops):
        fault = ServiceFault(f"{len(told)} answers to {len(ops)} operations")
        return [fault] * len(ops)
    return told


def _told(ops: Sequence[Op], body: bytes) -> list[Any]:
    """As many answers as there are, if these are as many as *ops*."""
    try:
        usual = [
            result.body.usual(op.operation) if result.status == OK else None
            for op, result in zip(ops, _results(body).results, strict=True)
        ]
    except ValueError:  # one is odd, or they are too few
        usual = [None] * len(ops)
    if None not in usual:
        return usual
    results = _raw_results(body).results
    if len(results) != len(ops):
        return results
    return [
        known or answer(op, result.status, result.body)
        for op, known, result in zip(ops, usual, results, strict=True)
    ]


def refusal_of(body: bytes) -> SluicegateError | None:
    """The exception for a problem in JSON; None when it is none."""
    try:
        return error_of(_json_problem(body), "channel", None)
    except msgspec.MsgspecError:
        return None


def view(kind: type[T], status: int, body: bytes) -> T:
    """What a route for reading has answered. Raises the exception for its refusal."""
    try:
        if status == OK:
            seen: T = _VIEWS[kind](body)
            return seen
        refusal = error_of(_json_problem(body), "look", None)
    except msgspec.MsgspecError as error:
        shown = body[:80]
        message = f"status {status} with a body that is no answer: {shown!r} ({error})"
        raise ServiceFault(message) from error
    raise refusal
