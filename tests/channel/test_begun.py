"""Frames that need no task: their script call is on its way when something else happens."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import redis
from tests_support.patient import ServiceThread
from tests_support.servers import Server, silent
from tests_support.talk import Talk, connect, take, timeless
from tests_support.waiting import wait_until

from limiter_service.engine.begun import Begun
from limiter_service.routes import channel
from limiter_service.store.client import Posted
from limiter_service.store.parcels import Call
from limiter_wire import Acquire

PLAIN = "p/plain"


@pytest.fixture
async def talk(service: ServiceThread) -> AsyncIterator[Talk]:
    """A client."""
    async with connect(service.channel, compression=None, max_size=None) as connection:
        yield Talk(connection, text=False)


async def asked(service: ServiceThread, count: int) -> None:
    """Return when so many acquires have begun."""
    await asyncio.to_thread(
        wait_until, lambda: len(service.engine.asked) >= count, "the acquires do not begin"
    )


async def answers(talk: Talk, count: int) -> dict[Any, dict[str, Any]]:
    """So many answers, by their id."""
    found: dict[Any, dict[str, Any]] = {}
    while len(found) < count:
        for each in await talk.hear():
            found[each.pop("id")] = each
    return found


@pytest.mark.parametrize("text", [True, False])
async def test_grants_say_the_same_as_on_their_route(service: ServiceThread, *, text: bool):
    """Of ordinary limits too, whose grants are written by a stencil."""
    async with connect(service.channel, compression=None) as connection:
        talk = Talk(connection, text=text)
        first = await talk.ask("acquire", resource=PLAIN, tokens=5)  # compiles the policy
        assert first["status"] == 200
        await talk.say([take(n, 5, PLAIN, request_id=f"r{n}") for n in (1, 2)])
        told = await answers(talk, 2)
    async with httpx.AsyncClient(base_url=service.url) as client:
        body = {"resource": PLAIN, "tokens": 5, "request_id": "r1"}
        again = (await client.post("/v1/acquire", json=body)).json()
        batch = {"ops": [{"op": "acquire", **body}, {"op": "acquire", **body, "request_id": "r3"}]}
        results = (await client.post("/v1/batch", json=batch)).json()["results"]
    assert told[1].pop("status") == told[2].pop("status") == 200
    assert timeless(told[1]) == timeless(again) == timeless(results[0]["body"])
    assert told[1]["lease"] != told[2]["lease"] != results[1]["body"]["lease"]
    assert list(told[1]) == list(again) == list(results[1]["body"])


async def test_a_grant_that_was_called_off_too_late_is_told(
    talk: Talk, service: ServiceThread, store: Server
):
    """It is charged, so its caller has to know: it can give it back. One that would have to
    wait does not.
    """
    held = await talk.ask("acquire", 1, resource="p/one", tokens=1)
    await talk.ask("acquire", 2, resource=PLAIN, tokens=1)
    with silent(store):
        await talk.say([take(3, 1, PLAIN, max_wait=30.0), take(4, 1, "p/one", max_wait=30.0)])
        await asked(service, 4)
        await talk.say([{"id": 3, "op": "cancel"}, {"id": 4, "op": "cancel"}])
        await talk.say([take(5, 1, PLAIN)])  # read behind them
        await asked(service, 5)
    told = await answers(talk, 3)
    assert told[3]["status"] == told[5]["status"] == 200
    assert told[4]["code"] == "cancelled"
    assert service.engine.waiting == 0
    settled = await talk.ask("settle", 6, lease=held["lease"])
    assert settled["status"] == 200
    after = await talk.ask("acquire", 7, resource="p/one", tokens=1)
    assert after["status"] == 200  # nobody stands in line


async def test_what_is_called_off_at_once_counts_no_more(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
):
    """In the message that asks for it, before its task has begun: one that has to learn first how
    long answers are.
    """
    monkeypatch.setattr(channel, "MOST_WAITING", 3)
    for n in range(5):
        asked = take(n, 1, f"p/e-{n}", max_wait=30.0)
        asked |= {"tokens": None, "input_tokens": 1}
        await talk.say([asked, {"id": n, "op": "cancel"}])
        assert (await answers(talk, 1))[n]["code"] == "cancelled"


async def test_what_has_ended_is_freed_at_once(talk: Talk):
    """Nothing of it is left to the collector, which looks seldom in a service."""
    await talk.ask("acquire", 0, resource=PLAIN, tokens=1)
    gc.collect()
    gc.disable()
    try:
        for first in range(1, 200, 20):
            await talk.say([take(n, 1, PLAIN, max_wait=5.0) for n in range(first, first + 20)])
            told = await answers(talk, 20)
            settles = [{"id": n, "op": "settle", "lease": told[n]["lease"]} for n in told]
            await talk.say(settles)
            await answers(talk, 20)
        left = [each for each in gc.get_objects() if isinstance(each, (Begun, Call, Posted))]
    finally:
        gc.enable()
    assert len(left) < 40  # calls of the service for itself


async def test_an_id_is_taken_while_its_frame_is_under_way(
    talk: Talk, service: ServiceThread, store: Server
):
    """Whether it has a task or not."""
    await talk.ask("acquire", 1, resource=PLAIN, tokens=1)
    with silent(store):
        await talk.say([take(2, 1, PLAIN)])
        await asked(service, 2)
        await talk.say([take(2, 1, PLAIN)])
        end = await talk.end()
    assert end.rcvd is not None
    assert end.rcvd.code == 1008


async def test_who_hangs_up_finds_its_grant_again(service: ServiceThread, store: Server):
    """By its request id: it was charged once."""
    async with connect(service.channel, compression=None) as connection:
        talk = Talk(connection, text=False)
        await talk.ask("acquire", 1, resource=PLAIN, tokens=1)
        with silent(store):
            await talk.say([take(2, 100, PLAIN, request_id="again", max_wait=5.0)])
            await asked(service, 2)
            await connection.close()
    async with connect(service.channel, compression=None) as connection:
        talk = Talk(connection, text=False)
        again = await talk.ask(
            "acquire", 1, resource=PLAIN, tokens=100, request_id="again", max_wait=5.0
        )
        (limit,) = again["limits"]
        assert (limit["limit"], limit["remaining"]) == (1_000_000, 1_000_000 - 101)


async def test_a_shutdown_lets_what_has_begun_end(
    talk: Talk, service: ServiceThread, store: Server
):
    """Grants are told; who would have to wait asks another replica."""
    await talk.ask("acquire", 1, resource="p/one", tokens=1)
    await talk.ask("acquire", 2, resource=PLAIN, tokens=1)
    with silent(store):
        await talk.say([take(3, 1, PLAIN, max_wait=30.0), take(4, 1, "p/one", max_wait=30.0)])
        await asked(service, 4)
        stopping = asyncio.create_task(asyncio.to_thread(service.stop))
        (channel,) = service.channels._open
        await asyncio.to_thread(wait_until, lambda: channel._parting, "it does not begin to stop")
    told = await answers(talk, 2)
    assert told[3]["status"] == 200
    assert told[4]["code"] == "shutting_down"
    end = await talk.end()
    assert end.rcvd is not None
    assert end.rcvd.code == 1012
    await stopping


async def test_a_connection_that_breaks_charges_nothing_twice(talk: Talk, store: Server):
    """Whether the store had heard of a call or not, it is sent again with the same request id."""
    await talk.ask("acquire", 0, resource=PLAIN, tokens=1)
    with redis.Redis(unix_socket_path=str(store.socket)) as orders:
        for n in range(1, 21):
            await talk.say([take(n, 10, PLAIN), take(-n + 100, 10, PLAIN)])
            orders.client_kill_filter(_type="normal", skipme=True)
            told = await answers(talk, 2)
            assert [each["status"] for each in told.values()] == [200, 200], told
    last = await talk.ask("acquire", 200, resource=PLAIN, tokens=1)
    (limit,) = last["limits"]
    assert limit["remaining"] == 1_000_000 - 402


async def test_a_mistake_of_ours_concerns_its_own_operation(
    talk: Talk, service: ServiceThread, monkeypatch: pytest.MonkeyPatch
):
    """The channel stays open, and the others in a message or a batch get their answers."""
    await talk.ask("acquire", 0, resource=PLAIN, tokens=1)
    real = service.engine._engine.begin

    def begin(request: Acquire, listener: Any) -> Any:
        if request.tokens == 13:
            raise KeyError("ours")
        return real(request, listener)

    monkeypatch.setattr(service.engine._engine, "begin", begin)
    await talk.say([take(1, 13, PLAIN), take(2, 1, PLAIN)])
    told = await answers(talk, 2)
    assert [told[n]["status"] for n in (1, 2)] == [500, 200]
    ops = [{"op": "acquire", "resource": PLAIN, "tokens": n} for n in (13, 1)]
    async with httpx.AsyncClient(base_url=service.url) as client:
        results = (await client.post("/v1/batch", json={"ops": ops})).json()["results"]
    assert [each["status"] for each in results] == [500, 200]
