"""Operations as bytes, answers as values or exceptions. Pure."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from client_sdk.errors import ServiceFault, SluicegateError, error_of
from limiter_wire import (
    Acquire,
    Checked,
    Granted,
    Operation,
    Problem,
    Renew,
    Renewed,
    Settle,
    Settled,
    Waiting,
)

T = TypeVar("T")
Request = Acquire | Settle | Renew

_OK, _ACCEPTED = 200, 202
_encode = msgspec.msgpack.Encoder().encode
_waiting = msgspec.msgpack.Decoder(Waiting).decode
_problem = msgspec.msgpack.Decoder(Problem).decode
_ANSWERS: dict[Operation, Any] = {
    Operation.ACQUIRE: msgspec.msgpack.Decoder(Granted).decode,
    Operation.SETTLE: msgspec.msgpack.Decoder(Settled).decode,
    Operation.RENEW: msgspec.msgpack.Decoder(Renewed).decode,
    Operation.CHECK: msgspec.msgpack.Decoder(Checked).decode,
}


class Op(msgspec.Struct, frozen=True):
    """One operation, encoded once however often it is sent.

    The service may hold the answer to one that `waits`.
    """

    operation: Operation
    body: bytes
    request_id: str | None
    waits: bool = False

    @property
    def path(self) -> str:
        """The route that takes this operation alone."""
        return f"/v1/{self.operation}"


class _Result(msgspec.Struct, frozen=True):
    status: int
    body: msgspec.Raw


class _Results(msgspec.Struct, frozen=True):
    results: list[_Result]


_results = msgspec.msgpack.Decoder(_Results).decode


def op(operation: Operation, request: Request) -> Op:
    """*request* as an operation; fields without a value stay out."""
    fields = {
        name: value for name, value in msgspec.structs.asdict(request).items() if value is not None
    }
    fields["op"] = operation
    waits = operation is Operation.ACQUIRE and fields["max_wait"] > 0
    return Op(operation, _encode(fields), getattr(request, "request_id", None), waits)


def batch(ops: Sequence[Op]) -> bytes:
    """The body of /v1/batch for *ops*."""
    return _encode({"ops": [msgspec.Raw(each.body) for each in ops]})


def answer(of: Op, status: int, body: bytes | msgspec.Raw) -> Any | SluicegateError:  # by operation
    """The value that the service answered, or the exception for its refusal."""
    try:
        if status == _OK:
            return _ANSWERS[of.operation](body)
        if status == _ACCEPTED:
            return _waiting(body)
        return error_of(_problem(body), of.operation, of.request_id)
    except msgspec.MsgspecError as error:
        shown = bytes(body)[:80]
        return ServiceFault(f"status {status} with a body that is no answer: {shown!r} ({error})")


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
