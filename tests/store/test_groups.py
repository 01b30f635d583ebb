"""Calls of one loop tick that meet the same limits are one call to the store, and each of them
has its own answer.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis
from hiredis import pack_command
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests_support.servers import Server
from tests_support.takers import engine_over

from limiter_service.engine.admission import Engine
from limiter_service.engine.refusals import Refusal
from limiter_service.store import exchange
from limiter_service.store.client import Client
from limiter_service.store.groups import (
    MOST_IN_A_GROUP,
    MOST_IN_A_ROW,
    Group,
    Mixed,
    Row,
    parcels,
)
from limiter_service.store.links import Command, Link
from limiter_service.store.ordinary import terms
from limiter_service.store.packing import pack
from limiter_service.store.parcels import APART, LONGEST_APART, Awaited, Kin, Together
from limiter_service.store.scripts import Script, load
from limiter_wire import Acquire, ErrorCode, Granted, Outcome, Settle, Settled, Usage

PATIENT = 20.0
_MANY = ("_group", "_mixed", "_row")
CONFIG = """
pools:
  p:
    models:
      m: {limits: [{meter: tokens, limit: 1000, per: 30d}, {meter: requests, limit: 500, per: 30d}]}
      other: {limits: [{meter: tokens, limit: 1000, per: 30d}]}
      slots: {concurrency: 5, limits: [{meter: tokens, limit: 1000, per: 30d}]}
      sure: {limits: [{meter: tokens, limit: 1000, per: 30d}]}
  shared:
    limits: [{meter: tokens, limit: 1000, per: 30d}]
    models: {"*": {limits: [{meter: requests, limit: 20, per: 30d}]}}
"""


class Network:
    """The way to a store: it counts what travels, and loses answers where it is told to."""

    sharded = False

    def __init__(self, link: Link) -> None:
        self._link = link
        self.scripts: Counter[str] = Counter()
        self.lose = 0
        kinds = [f"{what}{many}" for what in ("acquire", "settle") for many in ("", *_MANY)]
        ours = [load(name) for name in kinds]
        self._names = {key: each.name for each in ours for key in (each.sha, each.text)}

    def place(self, key: str) -> str:
        """Where it leads."""
        return self._link.place(key)

    async def send(self, place: str, commands: Sequence[Command]) -> list[Any]:
        """Deliver, and perhaps lose the answers."""
        self.scripts.update(self._names.get(command[1], "") for command in commands)
        replies = await self._link.send(place, commands)
        if self.lose:
            self.lose -= 1
            return [redis.ConnectionError("the connection was lost")] * len(commands)
        return replies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


class Replica:
    """An engine, and its way to the store."""

    def __init__(self, server: Server) -> None:
        self.client = Client(server.url, connect_timeout=PATIENT, command_timeout=PATIENT)
        self.network = self.client._link = Network(self.client._link)
        self.engine = engine_over(self.client, CONFIG)

    async def ask(self, *asked: Acquire) -> list[Granted | Refusal]:
        """All of them in one tick, in order."""
        found = await asyncio.gather(*map(self.engine.acquire, asked), return_exceptions=True)
        for each in found:
            assert isinstance(each, Granted | Refusal), each
        return found  # type: ignore[return-value]  # just seen

    async def settle(self, *reports: Settle) -> list[Settled]:
        """All of them in one tick, in order."""
        return await asyncio.gather(*map(self.engine.settle, reports))

    async def leases(self, count: int) -> list[Granted | Refusal]:
        """So many, of ten tokens each; circuits know of a success."""
        await self.warm("m")
        (first,) = await self.ask(Acquire(resource="p/m", tokens=10))
        await self.settle(used(first, 0))
        await self.settle(
            *(used(a, 0) for a in await self.ask(*[Acquire(resource="p/m", tokens=1)] * 2))
        )
        found = await self.ask(*[Acquire(resource="p/m", tokens=10)] * count)
        self.network.scripts.clear()
        return found

    async def warm(self, *models: str) -> None:
        """States exist and scripts are known, so that what comes is ordinary."""
        for model in models:
            await self.ask(Acquire(resource=f"p/{model}", tokens=1))
            await self.ask(*[Acquire(resource=f"p/{model}", tokens=1)] * 2)
        if len(models) > 1:
            await self.ask(*(Acquire(resource=f"p/{model}", tokens=0) for model in models))
        self.network.scripts.clear()


@pytest.fixture
async def replica(server: Server, db: redis.Redis) -> AsyncIterator[Replica]:
    """Over an empty store of each kind."""
    for name in ("acquire_row", "settle_row"):
        db.script_load(load(name).text)
    replica = Replica(server)
    yield replica
    await replica.client.aclose()


def used(answer: Granted | Refusal, tokens: int) -> Settle:
    """A report of what the call of a grant has used."""
    assert isinstance(answer, Granted), answer.problem
    return Settle(lease=answer.lease, usage=Usage(input_tokens=tokens))


def tokens_left(answer: Granted | Refusal) -> float:
    """What a grant says is left of the first limit."""
    assert isinstance(answer, Granted), answer.problem
    return answer.limits[0].remaining


async def left(engine: Engine, model: str) -> float:
    """What the store says is left of the first limit."""
    return (await engine.view(f"p/{model}", "default")).limits[0].remaining


async def test_those_who_ask_in_one_tick_are_one_call(replica: Replica):
    """Each has a lease of its own, and all see what they have left together."""
    await replica.warm("m")
    answers = await replica.ask(*(Acquire(resource="p/m", tokens=n) for n in range(1, 31)))
    assert replica.network.scripts == {"acquire_group": 1}
    assert len({answer.lease for answer in answers if isinstance(answer, Granted)}) == 30
    rest = 997 - sum(range(1, 31))
    assert [round(tokens_left(answer)) for answer in answers] == [rest] * 30
    assert round(await left(replica.engine, "m")) == rest


async def test_each_lease_of_a_group_is_settled_alone(replica: Replica):
    """They are leases like any other."""
    await replica.warm("m")
    for answer in await replica.ask(*[Acquire(resource="p/m", tokens=10)] * 20):
        assert (await replica.engine.settle(used(answer, 4))).refunded == {"tokens": 6}
    assert round(await left(replica.engine, "m")) == 997 - 20 * 4


async def test_those_who_settle_in_one_tick_are_one_call(replica: Replica):
    """Each is told what it gets back; a second report of the same tick, that it came second."""
    leases = await replica.leases(30)
    reports = [used(lease, n) for n, lease in enumerate(leases)]
    answers = await replica.settle(*reports, reports[0])
    assert replica.network.scripts == {"settle_group": 1, "settle": 1}
    for n, answer in enumerate(answers[:-1]):
        refunded, debited = ({"tokens": 10 - n}, {}) if n < 10 else ({}, {"tokens": n - 10})
        assert answer.refunded == refunded
        assert answer.debited == (debited if n != 10 else {})
        assert not answer.already_settled
    assert answers[-1].already_settled
    assert answers[-1].refunded == {"tokens": 10}
    assert round(await left(replica.engine, "m")) == 997 - sum(range(30))


async def test_a_group_of_settles_whose_answer_is_lost_moves_once(replica: Replica):
    """Each is asked again, and told what it had been told."""
    leases = await replica.leases(20)
    replica.network.lose = 1
    answers = await replica.settle(*(used(lease, 3) for lease in leases))
    assert [answer.refunded for answer in answers] == [{"tokens": 7}] * 20
    assert all(answer.already_settled for answer in answers)
    assert round(await left(replica.engine, "m")) == 997 - 60


async def test_calls_that_ended_badly_are_settled_in_a_row(replica: Replica):
    """What they say of the provider takes more; the others are together still."""
    leases = await replica.leases(6)
    outcomes = [Outcome.SUCCESS, Outcome.SERVER_ERROR] * 3
    reports = [
        replace(used(lease, 10), outcome=outcome)
        for lease, outcome in zip(leases, outcomes, strict=True)
    ]
    answers = await replica.settle(*reports)
    assert all(answer.settled for answer in answers)
    assert replica.network.scripts == {"settle_group": 1, "settle_row": 1}


async def test_as_many_are_granted_as_fit_and_the_first_ones(replica: Replica):
    """Whoever comes behind one that does not fit and does fit is granted, as alone."""
    await replica.warm("m")
    asked = [Acquire(resource="p/m", tokens=n) for n in (100, 800, 200, 90, 90)]
    answers = await replica.ask(*asked)
    assert [isinstance(answer, Granted) for answer in answers] == [True, True, False, True, False]
    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert {refusal.problem.code for refusal in refusals} == {ErrorCode.RATE_LIMITED}
    assert replica.network.scripts == {"acquire_group": 1}


async def test_one_request_twice_in_a_tick_is_charged_once(replica: Replica):
    """Both are told the same lease; and other words under the same id are a conflict."""
    await replica.warm("m")
    one, same = (Acquire(resource="p/m", tokens=100, request_id="r") for _ in "ab")
    other = Acquire(resource="p/m", tokens=50, request_id="r")
    more = Acquire(resource="p/m", tokens=7)
    answers = await replica.ask(one, same, other, more)
    first, second, third, fourth = answers
    assert isinstance(first, Granted)
    assert isinstance(second, Granted)
    assert first.lease == second.lease
    assert isinstance(third, Refusal)
    assert third.problem.code is ErrorCode.REQUEST_CONFLICT
    assert round(tokens_left(fourth)) == 997 - 107
    assert replica.network.scripts == {"acquire_group": 1, "acquire": 2}


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_group_whose_answer_is_lost_is_asked_again_and_charged_once(
    replica: Replica, lost: int
):
    """Its callers cannot know whether it was decided; each asks again with its request id."""
    await replica.warm("m")
    replica.network.lose = lost
    answers = await replica.ask(*[Acquire(resource="p/m", tokens=10)] * 40)
    assert {round(tokens_left(answer)) for answer in answers} == {597}
    assert round(await left(replica.engine, "m")) == 597
    assert replica.network.lose == 0


async def test_a_group_that_the_store_refuses_is_everybodys_error(
    server: Server, db: redis.Redis, replica: Replica
):
    """A full store says so to each, and nothing is charged."""
    await replica.warm("m")
    db.config_set("maxmemory", "1")
    try:
        answers = await replica.ask(*[Acquire(resource="p/m", tokens=10)] * 5)
    finally:
        db.config_set("maxmemory", "0")
    for answer in answers:
        assert isinstance(answer, Refusal)
        assert answer.problem.code is ErrorCode.STORE_UNAVAILABLE
    assert round(await left(replica.engine, "m")) == 997


async def test_a_store_that_has_lost_its_scripts_gets_them_again(replica: Replica, db: redis.Redis):
    """NOSCRIPT: a group was not run, and goes again with its text."""
    await replica.warm("m")
    db.script_flush()
    answers = await replica.ask(*[Acquire(resource="p/m", tokens=10)] * 8)
    assert {round(tokens_left(answer)) for answer in answers} == {997 - 80}
    assert replica.network.scripts == {"acquire_group": 2}


async def test_whoever_has_gone_is_not_asked_for(replica: Replica):
    """Cancelled before the group departs: nothing is charged for it."""
    await replica.warm("m")
    tasks = [
        asyncio.create_task(replica.engine.acquire(Acquire(resource="p/m", tokens=10)))
        for _ in range(6)
    ]

    async def cancel_some() -> None:
        for task in tasks[::2]:
            task.cancel()

    await asyncio.create_task(cancel_some())  # after all of them began, before any is sent
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [True, False] * 3
    assert round(await left(replica.engine, "m")) == 997 - 30


async def test_those_who_meet_other_limits_are_one_call_too(replica: Replica):
    """Each is charged to its own; and what is not of buckets alone goes in a row."""
    await replica.warm("slots")
    await replica.warm("m", "other")
    models = ("m", "other", "m", "slots", "other", "slots")
    answers = await replica.ask(*(Acquire(resource=f"p/{m}", tokens=1) for m in models))
    assert all(isinstance(answer, Granted) for answer in answers)
    assert replica.network.scripts == {"acquire_mixed": 1, "acquire_row": 1}
    assert [round(await left(replica.engine, model)) for model in ("m", "other")] == [995, 995]


async def test_calls_that_are_not_ordinary_are_decided_in_a_row(replica: Replica):
    """Five slots: the first five are granted, the others told what they would be told alone; a
    request that comes twice has one lease, and each settle gives back what is its own.
    """
    asked = [Acquire(resource="p/slots", tokens=n, request_id=f"r{n}") for n in range(1, 8)]
    answers = await replica.ask(*asked, asked[0])
    assert replica.network.scripts == {"acquire_row": 1}
    granted = [answer for answer in answers if isinstance(answer, Granted)]
    assert [answer.charged["tokens"] for answer in granted] == [1, 2, 3, 4, 5, 1]
    assert granted[0].lease == granted[-1].lease
    codes = [answer.problem.code for answer in answers if isinstance(answer, Refusal)]
    assert codes == [ErrorCode.RATE_LIMITED] * 2
    replica.network.scripts.clear()
    told = await replica.settle(*(used(answer, 3) for answer in granted[:-1]))
    assert replica.network.scripts["settle_row"] == 1
    assert [answer.refunded.get("tokens", 0) for answer in told] == [0, 0, 0, 1, 2]
    assert [answer.debited.get("tokens", 0) for answer in told] == [2, 1, 0, 0, 0]
    view = await replica.engine.view("p/slots", "default")
    assert {limit.meter: round(limit.remaining) for limit in view.limits} == {
        "tokens": 985,
        "concurrency": 5,
    }


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_row_whose_answer_is_lost_is_asked_again_and_charged_once(
    replica: Replica, lost: int
):
    """As calls that are alone."""
    await replica.ask(*[Acquire(resource="p/slots", tokens=0)] * 2)
    replica.network.lose = lost
    answers = await replica.ask(*[Acquire(resource="p/slots", tokens=10)] * 3)
    assert all(isinstance(answer, Granted) for answer in answers)
    view = await replica.engine.view("p/slots", "default")
    assert [round(limit.remaining) for limit in view.limits] == [0, 970]
    assert replica.network.lose == 0


async def test_chains_that_share_a_limit_are_charged_one_after_the_other(replica: Replica):
    """As many are granted as fit into what they share, in the order in which they came."""
    for model in "abc":
        await replica.ask(Acquire(resource=f"shared/{model}", tokens=0))
        await replica.ask(*[Acquire(resource=f"shared/{model}", tokens=0)] * 2)
    await replica.ask(*(Acquire(resource=f"shared/{model}", tokens=0) for model in "abc"))
    replica.network.scripts.clear()
    asked = [(model, n) for model, n in zip("abcab", (400, 300, 400, 90, 200), strict=True)]
    answers = await replica.ask(*(Acquire(resource=f"shared/{m}", tokens=n) for m, n in asked))
    assert [isinstance(answer, Granted) for answer in answers] == [True, True, False, True, True]
    assert replica.network.scripts == {"acquire_mixed": 1}
    view = await replica.engine.view("shared/a", "default")
    assert [round(limit.remaining) for limit in view.limits] == [10, 14]


async def test_calls_of_several_chains_settle_in_one_call(replica: Replica):
    """Each gets back what it did not use."""
    await replica.warm("m", "other")
    for _ in range(2):  # the circuits know of a success of now
        models = ("m", "other") * 3
        leases = await replica.ask(*(Acquire(resource=f"p/{m}", tokens=10) for m in models))
        replica.network.scripts.clear()
        answers = await replica.settle(*(used(lease, n) for n, lease in enumerate(leases)))
        assert [answer.refunded for answer in answers] == [{"tokens": 10 - n} for n in range(6)]
    assert replica.network.scripts == {"settle_mixed": 1}
    assert round(await left(replica.engine, "m")) == 997 - 2 * (0 + 2 + 4)
    assert round(await left(replica.engine, "other")) == 997 - 2 * (1 + 3 + 5)


@pytest.mark.parametrize("lost", [1, 2])
async def test_several_chains_whose_answer_is_lost_are_charged_once(replica: Replica, lost: int):
    """Each call asks again with its request id, and settles again with its lease."""
    await replica.warm("m", "other")
    asked = [Acquire(resource=f"p/{model}", tokens=10) for model in ("m", "other") * 10]
    replica.network.lose = lost
    answers = await replica.ask(*asked)
    assert round(await left(replica.engine, "m")) == 997 - 100
    replica.network.lose = lost
    told = await replica.settle(*(used(answer, 4) for answer in answers))
    assert [answer.refunded for answer in told] == [{"tokens": 6}] * 20
    for model in ("m", "other"):
        assert round(await left(replica.engine, model)) == 997 - 40


async def test_other_pools_are_other_calls(replica: Replica):
    """Their keys may be on other nodes."""
    await replica.warm("m")
    await replica.ask(Acquire(resource="shared/a", tokens=1))
    await replica.ask(*[Acquire(resource="shared/a", tokens=1)] * 2)
    replica.network.scripts.clear()
    names = ("p/m", "shared/a", "p/m", "shared/a")
    await replica.ask(*(Acquire(resource=name, tokens=1) for name in names))
    assert replica.network.scripts == {"acquire_group": 2}


async def test_retries_go_in_a_row(replica: Replica):
    """They spend of a budget that first attempts earn."""
    await replica.warm("m")
    asked = [Acquire(resource="p/m", tokens=1, attempt=n) for n in (1, 2, 2, 1)]
    assert all(isinstance(answer, Granted) for answer in await replica.ask(*asked))
    assert replica.network.scripts == {"acquire_group": 1, "acquire_row": 1}


POLICY = pack([7, 1, 60e6, 1, 0, 0, 1, 4, 1000, 0.5])


_TOGETHER = Together(*(Script(f"acquire_{kind}", "", "") for kind in ("group", "mixed", "row")))


def _calls(*kins: Kin | None) -> list[Awaited]:
    loop = asyncio.get_running_loop()
    calls = [Awaited(loop.create_future()) for _ in kins]
    for n, (call, kin) in enumerate(zip(calls, kins, strict=True)):
        call.aim(
            Script("acquire", "", ""),
            ("scope", "circuit", "pin", "events"),
            (POLICY, b""),
            own=(f"lease{n}", "queue"),
            asked=b"%07d " % n,
            together=_TOGETHER if kin else None,
            kin=kin,
        )
    return calls


async def test_what_goes_as_one_stands_where_its_first_call_does():
    """What is alone keeps its place; those of a kin are together, in the order of their first."""
    a, b = Kin(), Kin()
    calls = _calls(a, None, b, a, None, a, b)
    mixed, *alone = parcels(calls, 0.0)
    assert isinstance(mixed, Mixed)
    assert alone == [calls[1], calls[4]]
    assert [group.calls for group in mixed.groups] == [
        [calls[0], calls[3], calls[5]],
        [calls[2], calls[6]],
    ]
    command = mixed.groups[0].by_digest(plain=False)
    assert command[2:] == (
        7, "scope", "pin", "queue", "lease0", "lease3", "lease5", "circuit",
        terms([POLICY], b""), b"0000000 0000003 0000005 ",
    )  # fmt: skip
    command = mixed.by_digest(plain=False)
    assert command[2:] == (
        9, "scope", "pin", "queue", "lease0", "lease3", "lease5", "lease2", "lease6", "circuit",
        pack([1, 5, 1, 1, 3, 1, 1, 1, 2, 1, 1]), terms([POLICY], b""),
        b"0000000 0000003 0000005 ", b"0000002 0000006 ",
    )  # fmt: skip


async def test_each_group_hears_its_part():
    """Whoever is left over is asked for alone; and too few answers are nobody's."""
    a, b = Kin(), Kin()
    calls = _calls(a, b, b)
    (mixed,) = parcels(calls, 0.0)
    assert mixed.take([b"0000000 Q", b"0000001 ?"], 0.0) == calls[1:]
    assert calls[0].answer.result() == b"0000000 Q"
    (mixed,) = parcels(calls[1:] + _calls(a), 0.0)
    assert mixed.take([b"0000001 Q"], 0.0) == []
    assert all(isinstance(call.answer.exception(), Exception) for call in calls[1:])


async def test_a_row_has_the_calls_of_a_pool_that_have_no_kin():
    """As many as are bearable, in the place of the first; keys and policies once."""
    calls = [*_calls(*[None] * 2 * MOST_IN_A_ROW), *_calls(Kin())]
    for call in calls[:-1]:
        call.together = _TOGETHER
    calls[1].together = None
    calls[3].own = ("lease of another", "another queue")
    first, second, third, fourth, fifth = parcels(calls, 0.0)
    assert isinstance(first, Row)
    assert isinstance(fourth, Row)
    assert first.calls == [calls[0], calls[2], *calls[4 : MOST_IN_A_ROW + 2]]
    assert (second, third) == (calls[1], calls[3])
    assert fourth.calls == calls[MOST_IN_A_ROW + 2 : -1]
    assert isinstance(fifth, Group)
    row = Row()
    row.calls = calls[:2]
    row.calls[1].aim(
        row.calls[0].script,
        ("scope", "other", "pin", "events"),
        (POLICY, b"breaker"),
        own=("lease", "queue"),
        asked=b"more",
        together=_TOGETHER,
    )
    assert row.by_digest(plain=False)[2:] == (
        8, "queue", "scope", "circuit", "pin", "events", "other", "lease0", "lease",
        pack([2, 2, 4, 2, 2, 3, 4, 5, 2, 3, 4, 2, 2, 6, 4, 5, 2, 4, 1, 2]),
        POLICY, b"", b"breaker", b"0000000 ", b"more",
    )  # fmt: skip


async def test_each_of_a_row_hears_its_part():
    """Too few answers are nobody's, and an error is everybody's."""
    row = Row()
    row.calls = _calls(None, None, None)
    row.calls[1].answer.cancel()
    assert row.take([b"a", b"b", b"c"], 0.0) == ()
    assert [row.calls[n].answer.result() for n in (0, 2)] == [b"a", b"c"]
    for reply in ([b"a"], redis.ConnectionError("gone")):
        row.calls = _calls(None, None)
        assert row.take(reply, 0.0) == ()
        assert all(isinstance(call.answer.exception(), Exception) for call in row.calls)


async def test_a_call_says_the_same_alone_and_once_more():
    """What it has in common with others first, then what is its own."""
    (call,) = _calls(None)
    again = call.awaited(asyncio.get_running_loop().create_future())
    for each in (call, again):
        assert each.by_digest(plain=False)[2:] == (
            6, "scope", "circuit", "pin", "events", "lease0", "queue", POLICY, b"", b"0000000 ",
        )  # fmt: skip


async def test_a_group_is_bounded():
    """A script that decides holds everybody up."""
    kin = Kin()
    sizes = [
        len(each.calls) if isinstance(each, Group) else 1
        for each in parcels(_calls(*[kin] * (2 * MOST_IN_A_GROUP + 1)), 0.0)
    ]
    assert sizes == [MOST_IN_A_GROUP, MOST_IN_A_GROUP, 1]
    several = parcels(_calls(*[Kin(), Kin(), kin] * MOST_IN_A_GROUP), 0.0)
    assert all(isinstance(each, Mixed) for each in several)
    assert [sum(len(group.calls) for group in each.groups) for each in several] == [
        MOST_IN_A_GROUP
    ] * 3  # type: ignore[union-attr]  # just seen


async def test_an_answer_to_another_group_is_nobodys():
    """It becomes an error, not somebody's grant."""
    calls = _calls(*[Kin()] * 2)
    group = Group(calls[0])
    group.calls.append(calls[1])
    assert group.take(b"another GG", 0.0) == ()
    assert all(isinstance(call.answer.exception(), Exception) for call in calls)


async def test_a_group_of_no_use_keeps_its_kin_apart():
    """Until some time has passed."""
    kin = Kin()
    calls = _calls(kin, kin)
    (group,) = parcels(calls, 1.0)
    assert group.take(b"0000000 ", 1.0) == calls
    (row,) = parcels(calls, 1.0 + APART / 2)
    assert isinstance(row, Row)
    assert row.calls == calls
    (group,) = parcels(calls, 1.0 + 2 * APART)
    assert isinstance(group, Group)


async def test_what_is_of_no_use_again_and_again_is_tried_more_and_more_seldom():
    """Until it is of use; then it begins anew."""
    kin, now, pauses = Kin(), 1.0, []
    calls = _calls(kin)
    for _ in range(12):
        (group,) = parcels(calls, now)
        assert group.take(b"0000000 ", now) == calls
        pauses.append(kin.apart_until - now)
        now = kin.apart_until
    assert pauses[:3] == pytest.approx([APART, 2 * APART, 4 * APART])
    assert pauses[-1] == pytest.approx(LONGEST_APART)
    (group,) = parcels(calls, now)
    assert group.take(b"0000000 ?", now) == calls, "not this one, but perhaps the next"
    (group,) = parcels(calls, now)
    assert group.take(b"0000000 ", now) == calls
    assert kin.apart_until - now == pytest.approx(APART)


async def test_a_denial_is_one_call(replica: Replica):
    """Alone or in a group: refusals at a full limit are everyday traffic."""
    await replica.warm("m")
    await replica.ask(Acquire(resource="p/m", tokens=990))
    replica.network.scripts.clear()
    for count in (1, 1, 5):
        for answer in await replica.ask(*[Acquire(resource="p/m", tokens=500)] * count):
            assert isinstance(answer, Refusal)
            assert answer.problem.code is ErrorCode.RATE_LIMITED
            assert answer.problem.limit == "m.tokens-per-30d"
            assert answer.problem.retry_after == pytest.approx(493 / 1000 * 30 * 86400, rel=0.01)
    assert replica.network.scripts == {"acquire_group": 3}


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 3)), min_size=1, max_size=6))
async def test_a_call_travels_as_its_words_say(asked: list[tuple[bytes, int]]):
    """Filled into the form of those before it, also where its parts are of another size."""
    kin = Kin()
    for tail, longer in asked:
        (call,) = _calls(kin)
        call.asked, call.own = b"12345678" + tail, ("lease" + "x" * longer, "queue")
        group = Group(call)
        for plain in (False, True):
            command = group.packed(plain=plain)
            assert exchange.packed([command]) == pack_command(group.by_digest(plain=plain))
