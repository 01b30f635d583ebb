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
)

T = TypeVar("T")
Request = Acquire | Settle | Renew

_OK = 200
_encode = msgspec.msgpack.Encoder().encode
_problem = msgspec.msgpack.Decoder(Problem).decode
_ANSWERS: dict[Operation, Any] = {
    Operation.ACQUIRE: msgspec.msgpack.Decoder(Granted).decode,
    Operation.SETTLE: msgspec.msgpack.Decoder(Settled).decode,
    Operation.RENEW: msgspec.msgpack.Decoder(Renewed).decode,
    Operation.CHECK: msgspec.msgpack.Decoder(Checked).decode,
}


class Op(msgspec.Struct, frozen=True):
    """One operation, encoded once however often it is sent."""

    operation: Operation
    body: bytes
    request_id: str | None

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
    return Op(operation, _encode(fields), getattr(request, "request_id", None))


def batch(ops: Sequence[Op]) -> bytes:
    """The body of /v1/batch for *ops*."""
    return _encode({"ops": [msgspec.Raw(each.body) for each in ops]})


def answer(of: Op, status: int, body: bytes | msgspec.Raw) -> Any | SluicegateError:  # by operation
    """The value that the service answered, or the exception for its refusal."""
    try:
        if status == _OK:
            return _ANSWERS[of.operation](body)
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
