"""What the service sends, as values and exceptions; and operations, as it gets them."""

import sys
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client_sdk import Lease, RateLimited, ServiceFault, SluicegateError
from client_sdk._answers import Given, answer, answers
from client_sdk._codec import Op, batch, op
from client_sdk._roster import Roster
from client_sdk.alone import Alone
from limiter_service import frames
from limiter_wire import (
    Acquire,
    Checked,
    ErrorCode,
    Granted,
    LimitState,
    Meter,
    Observe,
    Operation,
    Renew,
    Renewed,
    Settle,
    Settled,
    Usage,
    Wire,
    problem,
)

LIMIT = LimitState(
    name="m.rpm", meter=Meter.REQUESTS, limit=60, remaining=59, reset_after=1, per=60
)
GRANTED = Granted(lease="L", expires_in=600, charged={"requests": 1.0}, limits=[LIMIT], waited=0.5)
ASKED = {
    Operation.ACQUIRE: Acquire(resource="p/m", tokens=1, request_id="r", max_wait=2.5),
    Operation.SETTLE: Settle(lease="L", usage=Usage(input_tokens=3)),
    Operation.RENEW: Renew(lease="L", ttl=9.0),
    Operation.CHECK: Acquire(resource="p/m", input_tokens=4, max_output_tokens=5),
    Operation.OBSERVE: Observe(resource="p/m", headers={"retry-after": "1"}, status=429),
}
TOLD: dict[Operation, Wire] = {
    Operation.ACQUIRE: GRANTED,
    Operation.SETTLE: Settled(refunded={"tokens": 2.0}, already_settled=True, breaker="open"),
    Operation.RENEW: Renewed(lease="L", expires_in=9.0, charged={}),
    Operation.CHECK: Checked(would_grant=False, limits=[LIMIT], suggested_max_tokens=7),
}


def fields(body: Wire) -> dict[str, Any]:
    """The fields of an answer, as they travel."""
    plain: dict[str, Any] = msgspec.to_builtins(body)
    return plain


def whole(result: Any) -> Any:
    """A grant with its limits; anything else as it is."""
    return result.whole() if isinstance(result, Given) else result


def heard(roster: Roster, *answers: dict[str, Any]) -> None:
    """Let a message of the service arrive."""
    roster.hear(msgspec.msgpack.encode(list(answers)))


@pytest.mark.parametrize("operation", ASKED)
def test_an_operation_travels_as_its_fields(operation: Operation):
    """All that is not taken for granted, with its name and its kind; alone it has no name."""
    asked = ASKED[operation]
    usual = msgspec.structs.fields(type(asked))
    defaults = {each.name: each.default for each in usual}
    said = {name: value for name, value in fields(asked).items() if value != defaults.get(name)}
    carried = op(operation, asked)
    for name in (7, 0):
        frame = msgspec.msgpack.decode(carried.frame(name))
        assert frame == {"id": name, "op": operation.value, **said}
    assert msgspec.msgpack.decode(carried.body) == {"op": operation.value, **said}
    [read] = frames.read(carried.frame(8))
    assert isinstance(read, frames.Frame)
    assert (read.id, read.verb.value) == (8, operation.value)


def test_what_failed_on_a_channel_has_no_name_in_a_batch():
    """It is the same operation, whichever way it goes, and goes the first way again."""
    carried = op(Operation.CHECK, ASKED[Operation.CHECK])
    first = carried.frame(7)
    (alone,) = msgspec.msgpack.decode(batch([carried]))["ops"]
    assert "id" not in alone
    assert carried.frame(7) == first


def test_a_request_of_somebody_else_is_left_as_it_is():
    """It may be kept, and asked again, with another name."""
    asked = Acquire(resource="p/m", tokens=1)
    op(Operation.ACQUIRE, asked).frame(7)
    assert asked == Acquire(resource="p/m", tokens=1)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(sorted(TOLD)), st.just(ErrorCode.RATE_LIMITED), st.just("nonsense")
        ),
        min_size=1,
        max_size=8,
    )
)
def test_every_answer_in_a_message_is_what_it_would_be_alone(kinds: list[Any]):
    """On a channel and in a batch: whatever stands beside it, nonsense too."""
    ops: list[Op] = []
    told: list[dict[str, Any]] = []
    for kind in kinds:
        operation = kind if isinstance(kind, Operation) else Operation.ACQUIRE
        ops.append(op(operation, ASKED[operation]))
        if isinstance(kind, Operation):
            told.append({"status": 200, "body": fields(TOLD[kind])})
        elif kind is ErrorCode.RATE_LIMITED:
            told.append({"status": 429, "body": fields(problem(kind, "no", limit="m.rpm"))})
        else:
            told.append({"status": 200, "body": {"lease": 5, "expires_in": []}})
    roster = Roster()
    waiters = [Future[Any]() for _ in ops]
    names = [roster.add(each, waiter) for each, waiter in zip(ops, waiters, strict=True)]
    heard(
        roster,
        *(
            {**answer["body"], "id": name, "status": answer["status"]}
            for name, answer in zip(names, told, strict=True)
        ),
    )
    over_http = answers(ops, 200, msgspec.msgpack.encode({"results": told}))
    for kind, waiter, posted in zip(kinds, waiters, over_http, strict=True):
        if isinstance(kind, Operation):
            assert whole(waiter.result(0)) == whole(posted) == TOLD[kind]
        else:
            error = RateLimited if kind is ErrorCode.RATE_LIMITED else ServiceFault
            assert type(waiter.exception(0)) is type(posted) is error


def test_a_batch_that_is_answered_with_too_few_is_a_fault_of_the_service():
    """Of all of them: nobody knows whose answer is missing."""
    ops = [op(Operation.ACQUIRE, ASKED[Operation.ACQUIRE]) for _ in range(2)]
    results = [{"status": 200, "body": fields(GRANTED)}]
    told = answers(ops, 200, msgspec.msgpack.encode({"results": results}))
    assert [type(each) for each in told] == [ServiceFault, ServiceFault]


def granted(**changes: Any) -> Given:
    """A grant as it comes over a channel."""
    roster, caller = Roster(), Future[Any]()
    name = roster.add(op(Operation.ACQUIRE, ASKED[Operation.ACQUIRE]), caller)
    heard(roster, {"id": name, "status": 200, **fields(GRANTED), **changes})
    result: Given = caller.result(0)
    return result


def test_a_grant_keeps_nothing_of_its_message_but_itself():
    """A lease that is held for an hour does not hold what came with it."""
    asked, told = op(Operation.ACQUIRE, ASKED[Operation.ACQUIRE]), fields(GRANTED)
    roster, caller = Roster(), Future[Any]()
    name = roster.add(asked, caller)
    message = msgspec.msgpack.encode([{"id": name, "status": 200, **told}])
    body = msgspec.msgpack.encode({"results": [{"status": 200, "body": told}]})
    whole_body = msgspec.msgpack.encode(told)
    before = [sys.getrefcount(each) for each in (message, body, whole_body)]
    roster.hear(message)
    kept = [caller.result(0), *answers([asked], 200, body), answer(asked, 200, whole_body)]
    assert [each.limits for each in kept] == [[LIMIT]] * 3
    assert [sys.getrefcount(each) for each in (message, body, whole_body)] == before


async def test_limits_that_cannot_be_read_spoil_nothing_but_the_look_at_them():
    """The budget is reserved all the same, and the lease settles."""

    async def settle(resource: str, report: Settle) -> Settled:
        return Settled(refunded={"tokens": float((resource, report.lease) == ("p/m", "L"))})

    async def renew(*_: object) -> Renewed:
        raise AssertionError("nobody renews it")

    given = granted(limits=[{"name": 3}])
    async with Lease(given, "p/m", "r", settle, renew) as lease:
        assert (lease.id, lease.charged, lease.degraded) == ("L", {"requests": 1.0}, False)
        for look in (lambda: lease.limits, lambda: lease.granted):
            with pytest.raises(ServiceFault, match="limits of a grant"):
                look()
    assert lease.settled == Settled(refunded={"tokens": 1.0})


def test_limits_that_cannot_be_read_are_nothing_to_decide_by_alone():
    """Without any, what is granted without the service is not bounded: so nothing is."""
    alone = Alone("degrade", 0.5)
    asked = Acquire(resource="p/m", tokens=1, request_id="r")
    alone.heard(asked, granted(limits="none"), 0.0)
    alone.lose(1.0)
    assert alone.take(asked, 1.0) is None


def test_a_lease_shows_what_the_service_has_said():
    """All of it, once somebody looks."""

    async def never(*_: object) -> Any:
        raise AssertionError("nobody asks")

    lease = Lease(granted(), "p/m", "r", never, never)
    assert lease.granted == GRANTED
    assert lease.granted is lease.granted
    assert lease.limits == [LIMIT]


@pytest.mark.parametrize("gone", [True, False])
def test_a_plain_grant_for_one_that_is_gone_goes_back(gone: bool):
    """The same as for one that has waited; a settle for one that is gone is not missed."""
    roster, caller = Roster(), Future[Any]()
    name = roster.add(op(Operation.ACQUIRE, ASKED[Operation.ACQUIRE]), caller)
    report = Future[Any]()
    other = roster.add(op(Operation.SETTLE, ASKED[Operation.SETTLE]), report)
    list(roster.take(0.0))
    if gone:
        caller.cancel()
        report.cancel()
    heard(
        roster,
        {"id": name, "status": 200, **fields(GRANTED)},
        {"id": other, "status": 200, **fields(TOLD[Operation.SETTLE])},
    )
    back = [msgspec.msgpack.decode(message) for message in roster.take(0.0)]
    assert [frame["lease"] for message in back for frame in message] == ["L"] * gone


def test_a_refusal_is_of_its_caller():
    """With the limit, and the request id."""
    roster, caller = Roster(), Future[Any]()
    name = roster.add(op(Operation.ACQUIRE, ASKED[Operation.ACQUIRE]), caller)
    refusal = problem(ErrorCode.RATE_LIMITED, "no", limit="m.rpm", retry_after=2.0)
    heard(roster, {"id": name, **fields(refusal)})
    error = caller.exception(0)
    assert isinstance(error, SluicegateError)
    assert (error.limit, error.request_id, error.retry_after) == ("m.rpm", "r", 2.0)
