"""Connections to the store, and what travels over them."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions
from redis.asyncio.connection import Connection
from tests_support.balancer import Balancer
from tests_support.servers import Server
from tests_support.told import HANG_UP, Told
from tests_support.waiting import until

from limiter_service.store.address import Login, Tls, parse
from limiter_service.store.berths import Berths
from limiter_service.store.client import Client
from limiter_service.store.connecting import connect
from limiter_service.store.deadlines import Overdue
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.exchange import Exchange
from limiter_service.store.links import Direct, OneServer
from limiter_service.store.scripts import load

PATIENT = 20.0
ASK = ("ECHO", "x")
COUNT = load(
    "test", {"test": 'return redis.call("SET", KEYS[1], (redis.call("GET", KEYS[1]) or 0) + 1)'}
)
READ = load("check", {"check": 'return redis.call("GET", KEYS[1])'})
KEY = ("sg:{p}:n",)


@contextlib.asynccontextmanager
async def link_to(url: str, patience: float = PATIENT) -> AsyncIterator[OneServer]:
    """The way to the server at *url*."""
    link = connect(
        parse(url),
        connect_timeout=PATIENT,
        command_timeout=patience,
        tls=Tls(),
        sentinels=Login(),
    )
    assert isinstance(link, OneServer)
    yield link
    await link.aclose()


async def ask(link: OneServer, *commands: tuple[Any, ...]) -> list[Any]:
    """What each is answered; the kind of an error."""
    replies = await link.send("", commands or [ASK])
    return [type(reply) if isinstance(reply, Exception) else reply for reply in replies]


def post(link: Direct, *commands: tuple[Any, ...]) -> "asyncio.Future[list[Any]] | None":
    """The replies that are heard at once, where a connection is idle."""
    heard: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    return heard if link.post("", commands or [ASK], heard.set_result) else None


def holds(condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    """The condition, awaited."""

    async def condition_now() -> object:
        return condition()

    return condition_now


# What comes in.


class Paper(asyncio.Transport):
    """A transport on which what is written is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written += bytes(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Whoever hears is told by the test."""

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def abort(self) -> None:
        """Close it."""
        self.closed = True


def on_paper() -> tuple[Exchange, Paper, list[str]]:
    """A connection on paper, and what its keeper has heard of it."""
    transport, heard = Paper(), []
    stream = SimpleNamespace(at_eof=lambda: False, exception=lambda: None, _buffer=b"")
    connection = SimpleNamespace(_reader=stream, _writer=SimpleNamespace(transport=transport))
    exchange = Exchange(
        connection, rests=lambda _: heard.append("rests"), ends=lambda _: heard.append("ends")
    )
    return exchange, transport, heard


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


def _array(parts: list[bytes]) -> bytes:
    return b"*%d\r\n%s" % (len(parts), b"".join(parts))


_PUSH = b">2\r\n+invalidate\r\n_\r\n"
_ERRORS = st.sampled_from(
    [
        b"-ERR what\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"-MOVED 1 127.0.0.1:7000\r\n",
        b"-READONLY You can't write.\r\n",
    ]
)
_PLAIN = st.one_of(
    st.binary(max_size=40).map(_bulk),
    st.integers(-(2**40), 2**40).map(lambda n: b":%d\r\n" % n),
    st.sampled_from([b"+OK\r\n", b"_\r\n", b"$-1\r\n", b"*0\r\n", b"#t\r\n", b",1.5\r\n"]),
    _ERRORS,
)
_REPLY = st.one_of(_PLAIN, st.lists(_PLAIN, max_size=4).map(_array))


def _heard(count: int, pieces: Sequence[bytes]) -> tuple[list[list[str]], list[str]]:
    """What is told of *count* commands when the answers come in *pieces*, and to the keeper."""

    async def hear() -> tuple[list[list[str]], list[str]]:
        told: list[list[str]] = []
        exchange, _, keeper = on_paper()
        exchange.ask(b"", count, lambda replies: told.append(list(map(repr, replies))))
        for piece in pieces:
            assert not told
            exchange.data_received(piece)
        return told, keeper

    return asyncio.run(hear())


@given(st.lists(_REPLY, min_size=1, max_size=6), st.lists(st.booleans()), st.data())
def test_however_answers_are_cut_into_pieces_the_replies_are_the_same(
    replies: list[bytes], pushed: list[bool], data: st.DataObject
) -> None:
    """And they are told once, when the last one is there; messages between them are none."""
    between = dict(enumerate(pushed))
    whole = b"".join((_PUSH if between.get(n) else b"") + reply for n, reply in enumerate(replies))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=20)))
    pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
    told, keeper = _heard(len(replies), pieces)
    assert keeper == ["rests"]
    assert len(told) == 1
    alone = [_heard(1, [reply])[0][0][0] for reply in replies]
    assert told[0] == alone


async def test_a_server_that_answers_byte_by_byte_is_understood() -> None:
    """Over a network, not on paper."""
    async with Told(b"$3\r\nabc\r\n", b"*2\r\n:1\r\n:2\r\n", in_bits=True) as told:
        async with link_to(told.url) as link:
            assert await ask(link, ASK, ASK) == [b"abc", [1, 2]]
        assert told.connections == 1


@pytest.mark.parametrize(
    ("answers", "heard"),
    [
        ([b"what is this\r\n"], [exceptions.InvalidResponse] * 2),
        ([b"+a\r\n", b"what\r\n"], [b"a", exceptions.InvalidResponse]),
        ([b"+a\r\n", b"+b\r\n+c\r\n"], [b"a", b"b"]),
        ([b"+a\r\n", b"+b\r\n$9\r\nhal"], [b"a", b"b"]),
        ([b"+a\r\n$5\r\nhal" + HANG_UP], [b"a", exceptions.ConnectionError]),
        ([HANG_UP], [exceptions.ConnectionError] * 2),
        ([b"-NOAUTH Who are you?\r\n", b"+b\r\n"], [exceptions.AuthenticationError, b"b"]),
        ([b"-LOADING Wait.\r\n", b"+b\r\n"], [exceptions.BusyLoadingError, b"b"]),
    ],
)
async def test_a_connection_that_cannot_be_trusted_is_closed(
    answers: list[bytes], heard: list[Any]
) -> None:
    """What was answered before is told; whoever comes next has a new connection."""
    async with Told(*answers) as told, link_to(told.url) as link:
        assert await ask(link, ASK, ASK) == heard
        assert post(link) is None
        told.answers.extend([b"+new\r\n"])
        assert await ask(link) == [b"new"]
        await until(holds(lambda: told.ended == 1), "the connection stays")
        assert told.connections == 2


async def test_what_nobody_has_asked_for_closes_the_connection() -> None:
    """It cannot become the answer to what is asked next."""
    async with Told(b"+a\r\n") as told, link_to(told.url) as link:
        assert await ask(link) == [b"a"]
        await told.say(b"+somebody else's\r\n")
        await until(holds(lambda: told.ended == 1), "the connection stays")
        told.answers.append(b"+mine\r\n")
        assert await ask(link) == [b"mine"]


async def test_a_message_between_answers_is_no_answer() -> None:
    """As a server that speaks RESP3 may send one."""
    async with Told(b"+a\r\n" + _PUSH, b"+b\r\n") as told, link_to(told.url) as link:
        assert await ask(link, ASK, ASK) == [b"a", b"b"]
        assert post(link) is not None


# How long a connection is waited for.


async def test_whoever_does_not_answer_in_time_is_asked_no_more() -> None:
    """What it says later is heard by nobody: the connection is closed."""
    async with Told() as told, link_to(told.url, 0.05) as link:
        told.else_ = b"+a\r\n"

        async def served() -> bool:
            return await ask(link) == [b"a"]

        await until(served, "it never answers")
        before = told.ended
        told.answers.append(b"+a\r\n")
        told.else_ = b""
        first, second = await ask(link, ASK, ASK)
        assert first in {b"a", Overdue}, "as fast as the machine is"
        assert second is Overdue
        await until(holds(lambda: told.ended > before), "the connection stays")
        assert post(link) is None


async def test_whoever_is_called_off_leaves_no_connection_with_an_answer_to_come() -> None:
    """It would be taken for another's."""
    async with Told(b"") as told, link_to(told.url, patience=600.0) as link:
        called = asyncio.create_task(ask(link))
        await until(holds(lambda: told.asked), "nobody asks")
        called.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await called
        await until(holds(lambda: told.ended == 1), "the connection stays")
        told.answers.append(b"+mine\r\n")
        assert await ask(link) == [b"mine"]


async def test_a_trip_without_an_answer_ends_with_its_time() -> None:
    """Its caller has been told before; nothing of it stays under way."""
    async with Told() as told:
        client = Client(told.url, connect_timeout=PATIENT, command_timeout=0.05)
        told.else_ = b"+a\r\n"

        async def served() -> bool:
            with contextlib.suppress(StoreUnavailable):
                return await client.run(READ, KEY, ()) == b"a"
            return False

        await until(served, "it never answers")
        told.else_ = b""
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.05 s"):
            await client.run(READ, KEY, ())
        await asyncio.wait_for(client.quiet(), PATIENT)
        await client.aclose()
        await until(holds(lambda: told.ended == told.connections), "a connection stays")


async def test_quiet_is_when_the_store_has_answered_those_who_have_gone_too() -> None:
    """Not before: what they have asked may still change something."""
    async with Told(b"+a\r\n", b"") as told:
        client = Client(told.url, connect_timeout=PATIENT, command_timeout=PATIENT)
        await client.run(READ, KEY, ())
        gone = asyncio.create_task(client.run(READ, KEY, ()))
        await until(holds(lambda: len(told.asked) == 2), "nobody asks")
        gone.cancel()
        quiet = asyncio.create_task(client.quiet())
        await asyncio.wait({gone})
        await asyncio.sleep(0)
        assert not quiet.done()
        await told.say(b"+late\r\n")
        await asyncio.wait_for(quiet, PATIENT)
        told.answers.append(b"+mine\r\n")
        assert await client.run(READ, KEY, ()) == b"mine"
        assert told.connections == 1, "all that was asked was answered"
        await client.aclose()


async def test_a_mistake_of_who_hears_costs_no_connection() -> None:
    """The loop is told of it."""
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    def wrong(_replies: list[Any]) -> None:
        raise KeyError("ours")

    async with Told(b"+a\r\n", b"+b\r\n", b"+c\r\n") as told, link_to(told.url) as link:
        await ask(link)
        assert link.post("", [ASK], wrong)
        await until(holds(lambda: said), "nobody is told")
        assert await ask(link) == [b"c"]
        assert told.connections == 1
    assert [type(each["exception"]) for each in said] == [KeyError]


async def test_what_is_no_command_costs_no_connection() -> None:
    """It is refused before a byte of it is sent."""
    async with Told(b"+a\r\n", b"+b\r\n") as told, link_to(told.url) as link:
        await ask(link)
        for _ in range(3):
            with pytest.raises(TypeError):
                await link.send("", [("ECHO", object())])
        assert await ask(link) == [b"b"]
        assert told.connections == 1


# Which connections there are.


async def test_over_a_connection_that_is_idle_there_is_no_task(
    client: Client, running: redis.Redis
) -> None:
    """The first call has one, which connects; then they are sent and heard by the loop alone."""
    await client.run(COUNT, KEY, ())
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def task(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
        made.append(work)
        return asyncio.Task(work, loop=loop, **more)

    before = loop.get_task_factory()
    loop.set_task_factory(task)
    try:
        for _ in range(20):
            await client.run(COUNT, KEY, ())
    finally:
        loop.set_task_factory(before)
    assert not made
    assert running.get(KEY[0]) == b"21"


async def test_an_idle_connection_that_the_server_closes_is_forgotten(
    client: Client, running: redis.Redis
) -> None:
    """The next call fails at nothing: it has run once."""
    await client.run(COUNT, KEY, ())
    link = client._link
    assert isinstance(link, OneServer)
    assert link._berths._idle
    running.client_kill_filter(_type="normal", skipme=True)
    await until(holds(lambda: not link._berths._idle), "it is kept")
    await client.run(COUNT, KEY, ())
    assert running.get(KEY[0]) == b"2"


async def test_a_network_that_breaks_takes_what_is_under_way_along(
    own: Server, running: redis.Redis
) -> None:
    """It is asked again over new connections, all within the deadline."""
    with Balancer([str(own.socket)]) as relay:
        url = f"redis://127.0.0.1:{relay.port}"
        client = Client(url, connect_timeout=PATIENT, command_timeout=PATIENT)
        await asyncio.gather(*(client.run(COUNT, KEY, ()) for _ in range(10)))
        relay.keep_answers()
        calls = asyncio.gather(*(client.run(COUNT, KEY, ()) for _ in range(10)))
        await until(holds(lambda: running.get(KEY[0]) == b"20"), "they do not run")
        relay.cut()
        relay.flow()
        assert await calls == [b"OK"] * 10
        assert running.get(KEY[0]) == b"30", "each has run twice, as it may"
        await client.aclose()


async def test_who_has_another_address_now_is_asked_by_everybody() -> None:
    """As when sentinels name another primary: connections to the old one are used no more."""
    async with Told(b"+a\r\n", b"") as old, Told(b"+b\r\n", b"+c\r\n") as new:
        there = [old]

        def connection() -> Connection:
            ((host, port),) = parse(there[0].url).hosts
            return Connection(host=host, port=port, driver_info=None)

        berths = Berths(connection, PATIENT)
        assert await berths.send([ASK]) == [b"a"]
        under_way = asyncio.create_task(berths.send([ASK]))
        await until(holds(lambda: len(old.asked) == 2), "nobody asks")
        there[0] = new
        assert await berths.send([ASK]) == [b"b"]
        await old.say(b"+late\r\n")
        assert await under_way == [b"late"], "what is under way ends"
        await until(holds(lambda: old.ended == 1), "the old connection is kept")
        assert await berths.send([ASK]) == [b"c"]
        assert new.connections == 1
        await berths.aclose()


async def test_a_place_that_is_no_more_keeps_no_connection() -> None:
    """As that of a node which has left its cluster: what is under way ends before."""
    async with Told(b"+a\r\n", b"+b\r\n", b"") as told:
        ((host, port),) = parse(told.url).hosts
        berths = Berths(lambda: Connection(host=host, port=port, driver_info=None), PATIENT)
        found = await asyncio.gather(*(berths.send([ASK]) for _ in "ab"))
        assert sorted(found) == [[b"a"], [b"b"]]
        under_way = asyncio.create_task(berths.send([ASK]))
        await until(holds(lambda: len(told.asked) == 3), "nobody asks")
        berths.retire()
        await until(holds(lambda: told.ended == 1), "what is idle is kept")
        await told.say(b"+late\r\n")
        assert await under_way == [b"late"]
        await until(holds(lambda: told.ended == 2), "what was under way is kept")


async def test_what_is_closed_is_closed_when_that_returns() -> None:
    """Also what is under way; its caller hears so."""
    async with Told(b"+a\r\n") as told, link_to(told.url) as link:
        await ask(link)
        heard = post(link)
        assert heard is not None
        await link.aclose()
        assert not link._berths._open
        (error,) = heard.result()
        assert isinstance(error, exceptions.ConnectionError)
        await until(holds(lambda: told.ended == 1), "the connection stays")
