"""Limits that are said in full once, and briefly after that."""

from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from tests_support.patient import ServiceThread
from websockets.asyncio.client import connect

from client_sdk import Limiter, LimiterOptions, ServiceFault, SyncLimiter
from client_sdk._answers import Given, frames
from client_sdk._codec import AcquireOp, Op
from client_sdk._roster import Roster
from limiter_wire import LimitState, Meter, Operation

ONLY = LimiterOptions(channel="only", timeout=10)
LIMIT = LimitState(name="l", meter=Meter.TOKENS, limit=10, remaining=7, reset_after=3.0, per=10)
FULL: dict[str, Any] = {
    "lease": "L",
    "expires_in": 1.0,
    "limits": [msgspec.to_builtins(LIMIT)],
    "form": [1, [[10.0, 1e-6]]],
}
BRIEF: dict[str, Any] = {"lease": "L", "expires_in": 1.0, "levels": [1, bytes(8)]}


def message(*told: dict[str, Any]) -> bytes:
    """A message of the service."""
    return msgspec.msgpack.encode([{"status": 200, **each} for each in told])


def acquiring(roster: Roster, waits: float = 0.0) -> "tuple[int, Future[Any]]":
    """An acquire under way."""
    op = Op(Operation.ACQUIRE, AcquireOp(resource="p/m", tokens=1, request_id="r"), waits)
    told: Future[Any] = Future()
    return roster.add(op, told), told


@pytest.mark.parametrize("waits", [0.0, 9.0])
def test_who_waits_and_who_does_not_read_brief_limits(waits: float):
    """By the form that came before, whoever had asked for that."""
    roster = Roster()
    first, second = acquiring(roster), acquiring(roster, waits)
    roster.hear(message({"id": first[0], **FULL}))
    roster.hear(message({"id": second[0], **BRIEF}))
    assert first[1].result().limits == [LIMIT]
    assert second[1].result().limits == [
        msgspec.structs.replace(LIMIT, remaining=0, reset_after=10.0)
    ]


@pytest.mark.parametrize(
    "beside", [{"id": 99, **FULL}, {"id": 99, **FULL, "lease": 7}, {"id": 98, "lease": 5}]
)
def test_a_form_is_learned_from_any_answer(beside: dict[str, Any]):
    """Also from one that nobody waits for, and beside one that is odd."""
    roster = Roster()
    name, told = acquiring(roster)
    roster.hear(message({"id": 97, **FULL}, beside, {"id": name, **BRIEF}))
    assert [limit.remaining for limit in told.result().limits] == [0]


def test_the_next_connection_tells_its_own_forms():
    """Its numbers mean something else."""
    roster = Roster()
    name, told = acquiring(roster)
    roster.hear(message({"id": 99, **FULL}))
    roster.lost()
    roster.hear(message({"id": name, **BRIEF}))
    with pytest.raises(ServiceFault, match="form 1 was never told"):
        assert told.result().limits


@pytest.mark.parametrize("levels", [b"", bytes(7), bytes(16)])
def test_levels_that_are_too_few_or_too_many_cannot_be_read(levels: bytes):
    """The lease is good nevertheless."""
    full, brief = frames(message({"id": 1, **FULL}, {"id": 2, **BRIEF, "levels": [1, levels]}))
    forms: dict[int, Any] = {}
    full.formed(forms)
    brief.formed(forms)
    given = brief.usual(Operation.ACQUIRE)
    assert isinstance(given, Given)
    assert given.lease == "L"
    with pytest.raises(ServiceFault, match="cannot be read"):
        assert given.limits


async def test_a_client_that_does_not_ask_for_it_hears_everything(service: ServiceThread):
    """Each grant has its limits, as the route says it."""
    asked = [{"id": n, "op": "acquire", "resource": "p/plain", "tokens": 1} for n in (1, 2)]
    for query, brief in (("", 0), ("?limits=brief", 1), ("?limits=other&x=1", 0)):
        async with connect(service.channel + query, compression=None) as connection:
            told: list[dict[str, Any]] = []
            for frame in asked:
                await connection.send(msgspec.msgpack.encode([frame]))
                told += msgspec.msgpack.decode(await connection.recv())
        assert [each["status"] for each in told] == [200, 200]
        assert sum("levels" in each for each in told) == brief
        assert sum("form" in each for each in told) == brief
        assert sum("limits" in each for each in told) == 2 - brief


async def test_a_chain_without_limits_has_nothing_to_be_brief_about(service: ServiceThread):
    """It is told in full, which is short, however often."""
    async with connect(f"{service.channel}?limits=brief", compression=None) as connection:
        for name in (1, 2):
            asked = {"id": name, "op": "acquire", "resource": "p/free", "tokens": 1}
            await connection.send(msgspec.msgpack.encode([asked]))
            (told,) = msgspec.msgpack.decode(await connection.recv())
            assert (told["id"], told["status"], told["limits"]) == (name, 200, [])


async def test_both_limiters_see_the_limits_of_every_grant(service: ServiceThread):
    """The second in full as the first, which was told in full."""
    async with Limiter(service.url, options=ONLY) as limiter:
        leases = [await limiter.acquire("p/plain", tokens=100) for _ in range(3)]
        for lease in leases:
            await lease.settle()
    left = [lease.limits[0].remaining for lease in leases]
    assert left == [left[0], left[0] - 100, left[0] - 200]
    assert {lease.limits[0].name for lease in leases} == {"plain.budget"}
    with SyncLimiter(service.url, options=ONLY) as sync:
        for _ in range(2):
            with sync.acquire("p/plain", tokens=100) as lease:
                assert lease.granted.limits[0].limit == 1000000
                assert lease.limits[0].remaining <= 1000000
