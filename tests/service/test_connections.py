"""Whoever is slow, large or many is closed, and everybody else is served."""

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_support.patient import ServiceThread
from tests_support.servers import Server
from tests_support.waiting import until
from tests_support.wire import Wire, frame, post, request

from limiter_service.connection import Seldom
from limiter_service.guests import Guests, Manners, most_of, neighbourhood, networks

CONFIG = "pools: {p: {models: {m: {rpm: 100000}}}}"
QUICK = {"head_timeout": 0.3, "body_timeout": 0.3}
TAKE = {"resource": "p/m", "tokens": 1}
CERTIFICATES = Path(__file__).parents[1] / "access" / "certificates"

Start = Callable[..., ServiceThread]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pools file."""
    path = tmp_path_factory.mktemp("connections") / "pools.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def start(own_store: Server, config: Path) -> Iterator[Start]:
    """Start a service with settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            ServiceThread(own_store.url, config, **QUICK | settings)
        )


@pytest.fixture(scope="module")
def service(own_store: Server, config: Path) -> Iterator[ServiceThread]:
    """A service that has little patience."""
    with ServiceThread(own_store.url, config, **QUICK) as running:
        yield running


@pytest.fixture(scope="module")
def patient(own_store: Server, config: Path) -> Iterator[ServiceThread]:
    """A service that has more than the tests."""
    with ServiceThread(own_store.url, config, head_timeout=60, body_timeout=60) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, no error is ours."""
    yield
    told = caplog.get_records("call")
    assert [each.getMessage() for each in told if each.levelno >= logging.ERROR] == []


async def serves(service: ServiceThread) -> bool:
    """Whether somebody who behaves is served."""
    async with httpx.AsyncClient(timeout=20) as client:
        return (await client.post(f"{service.url}/v1/acquire", json=TAKE)).status_code == 200


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"POST /v1/acq", b"408"),
        (b"POST /v1/acquire HTTP/1.1\r\nhost: x\r\nx-slow: ", b"408"),
    ],
    ids=["nothing", "line end", "half a line", "half a head"],
)
async def test_a_head_that_does_not_come_closes_the_connection(
    service: ServiceThread, sent: bytes, told: bytes
):
    """Its time begins with the connection; what is no request yet is answered all the same."""
    async with Wire(service.url) as wire:
        wire.say(sent)
        assert told in (await wire.rest()).partition(b"\r\n")[0]
    assert await serves(service)


@pytest.mark.parametrize("drop", [b"\r\n", b"x"])
async def test_the_time_of_a_head_does_not_begin_again_with_each_byte(
    service: ServiceThread, drop: bytes
):
    """Whoever sends one now and then is closed like anybody else."""
    async with Wire(service.url) as wire:
        ending = asyncio.create_task(wire.rest())
        while not ending.done():
            wire.say(drop)
            await asyncio.wait({ending}, timeout=0.05)
        await ending


@pytest.mark.parametrize("sent", [b"\r\n", b"POST /v1/acq"], ids=["line end", "half a line"])
async def test_a_connection_that_was_served_has_no_more_patience(
    service: ServiceThread, sent: bytes
):
    """The time for an idle connection is for idle ones."""
    async with Wire(service.url) as wire:
        wire.say(post("/v1/acquire", TAKE))
        assert (await wire.answer())[0] == 200
        wire.say(sent)
        await wire.rest()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/acquire", 408),
        ("PUT", "/v1/log-level", 408),
        ("POST", "/v1/config/validate", 408),
        ("POST", "/nowhere", 408),
        ("GET", "/livez", 200),
    ],
)
async def test_a_body_that_does_not_come_closes_the_connection(
    service: ServiceThread, method: str, path: str, status: int
):
    """On every route, whether it reads the body or not; the answer comes first."""
    async with Wire(service.url) as wire:
        wire.say(request(method, path, "content-length: 50", body=b'{"resource"'))
        assert (await wire.answer())[0] == status
        assert await wire.rest() == b""


async def test_a_body_that_comes_in_pieces_is_read(patient: ServiceThread):
    """Slow is not too slow."""
    whole = post("/v1/acquire", TAKE)
    async with Wire(patient.url) as wire:
        for at in range(0, len(whole), 7):
            wire.say(whole[at : at + 7])
            await wire.said()
        assert (await wire.answer())[0] == 200


@pytest.mark.parametrize("path", ["/v1/log-level", "/v1/config/validate", "/nowhere"])
async def test_a_body_beyond_the_bound_is_too_large_on_every_route(
    patient: ServiceThread, path: str
):
    """FastAPI alone would say that it is malformed, or read on."""
    method = "PUT" if path == "/v1/log-level" else "POST"
    async with Wire(patient.url) as wire:
        wire.say(request(method, path, "content-length: 70000"))
        status, told = await wire.answer()
        assert (status, told["code"]) == (413, "too_large")


async def test_a_head_without_end_is_refused_before_it_ends(patient: ServiceThread):
    """What is no request yet is kept only up to the bound of a head."""
    async with Wire(patient.url) as wire:
        wire.say(b"GET / HTTP/1.1\r\nx-long: " + b"x" * 40_000)
        status, told = await wire.answer()
        assert (status, told["code"]) == (431, "headers_too_large")
        assert await wire.rest() == b""


async def test_fields_behind_a_body_are_none_of_the_request_and_end(patient: ServiceThread):
    """A proxy that looks at heads has not seen them; and nobody keeps them without end."""
    size = b'{"resource":"p/m","tokens":1}'
    chunked = b"%x\r\n%b\r\n0\r\n" % (len(size), size)
    head = ("transfer-encoding: chunked", "content-type: application/json")
    async with Wire(patient.url) as wire:
        for _ in range(2):  # with the field as its id, the second would be the first again
            wire.say(request("POST", "/v1/acquire", *head, body=chunked))
            wire.say(b"idempotency-key: same\r\n\r\n")
        leases = {(await wire.answer())[1]["lease"] for _ in range(2)}
        assert len(leases) == 2
        wire.say(request("POST", "/v1/acquire", *head, body=chunked + b"x-long: "))
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                wire.say(b"x" * 10_000)
                await wire.said()
        await wire.rest()
    assert await serves(patient)


async def test_requests_ahead_of_their_answers_are_bounded(patient: ServiceThread):
    """Some are answered in their order; thousands in one piece are no way to call."""
    async with Wire(patient.url) as wire:
        wire.say(post("/v1/acquire", TAKE) * 10)
        assert [(await wire.answer())[0] for _ in range(10)] == [200] * 10
        wire.say(request("GET", "/livez") * 2000)
        assert (await wire.rest()).count(b"HTTP/1.1") < 40
    assert await serves(patient)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked, x\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"CONNECT x HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_closed(patient: ServiceThread, sent: bytes):
    """A proxy in front could read it in another way."""
    async with Wire(patient.url) as wire:
        wire.say(sent)
        status, told = await wire.answer()
        assert (status, told["code"]) == (400, "malformed")
        assert await wire.rest() == b""


async def test_connections_of_an_address_are_bounded_and_those_that_end_make_room(start: Start):
    """One too many is closed at once; the others are not touched."""
    service = start(head_timeout=60, max_connections_per_address=8)
    async with contextlib.AsyncExitStack() as stack:
        them = [await stack.enter_async_context(Wire(service.url)) for _ in range(8)]
        async with Wire(service.url) as ninth:
            ninth.say(post("/v1/acquire", TAKE))
            assert await ninth.rest() == b""
        them[0].say(post("/v1/acquire", TAKE))
        assert (await them[0].answer())[0] == 200
        await them[1].__aexit__(None, None, None)

        async def again() -> bool:
            async with Wire(service.url) as tenth:
                tenth.say(post("/v1/acquire", TAKE, "connection: close"))
                return b" 200 " in (await tenth.rest())[:20]

        await until(again, "nobody has room")


async def test_channels_count_as_connections(start: Start):
    """And are forgotten when they end."""
    service = start(max_connections_per_address=8)

    async def open_one(stack: contextlib.AsyncExitStack) -> None:
        await (await stack.enter_async_context(Wire(service.url))).upgrade()

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            await open_one(stack)
        async with Wire(service.url) as ninth:
            ninth.say(post("/v1/acquire", TAKE))
            assert await ninth.rest() == b""

    async def room() -> bool:
        try:
            return await serves(service)
        except httpx.HTTPError:
            return False

    await until(room, "nobody has room")


async def closed(service: ServiceThread) -> dict[str, int]:
    """How many connections have been closed, by reason, as the metrics have it."""
    async with httpx.AsyncClient(timeout=20) as client:
        text = (await client.get(f"{service.url}/metrics")).text
    row = re.compile(r'^sluicegate_connections_closed_total{reason="(\w+)"} (\d+)', re.MULTILINE)
    return {reason: int(count) for reason, count in row.findall(text) if int(count)}


async def test_who_is_closed_is_counted_by_reason(start: Start):
    """Each once; whoever says goodbye is not."""
    service = start()
    for sent in (
        b"GET / HT",
        request("POST", "/nowhere", "content-length: 5"),
        b"nonsense\r\n\r\n",
    ):
        async with Wire(service.url) as wire:
            wire.say(sent)
            await wire.rest()
    async with Wire(service.url) as wire:
        wire.say(b"GET / HTTP/1.1\r\nx-long: " + b"x" * 40_000)
        await wire.rest()
    async with Wire(service.url) as wire:
        await wire.upgrade()
        wire.say(b"\x81")
        await wire.rest()
    assert await serves(service)
    expected = {"slow_head": 1, "slow_body": 2, "malformed": 1, "too_large": 1}
    assert await closed(service) == expected


async def test_who_is_one_too_many_is_counted(start: Start):
    """Of an address here."""
    service = start(head_timeout=60, max_connections_per_address=8)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(7):
            await (await stack.enter_async_context(Wire(service.url))).upgrade()
        async with httpx.AsyncClient(timeout=20) as eighth:
            assert (await eighth.get(f"{service.url}/livez")).is_success
            async with Wire(service.url) as ninth:
                assert await ninth.rest() == b""
            text = (await eighth.get(f"{service.url}/metrics")).text
    assert 'connections_closed_total{reason="address"} 1.0' in text
    assert "connections_open 8.0" in text


@pytest.mark.parametrize(
    ("channel", "patience"),
    [(False, 0.3), (True, 0.3), (True, 60.0)],
    ids=["answers", "pongs", "many pongs"],
)
async def test_whoever_does_not_read_answers_is_broken_off(
    start: Start, monkeypatch: pytest.MonkeyPatch, channel: bool, patience: float
):
    """What it leaves unread is memory of ours."""
    monkeypatch.setattr("limiter_service.app.Manners", partial(Manners, unread_timeout=patience))
    service = start(body_timeout=60)
    service.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    async with Wire(service.url) as wire:
        raw = wire._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        wire._writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's has it
        if channel:
            wire._writer.transport.resume_reading()  # type: ignore[attr-defined]  # likewise
            await wire.upgrade()
            wire._writer.transport.pause_reading()  # type: ignore[attr-defined]  # likewise

        async def closed() -> bool:
            wire.say(frame(9, b"x" * 125) * 500 if channel else request("GET", "/openapi.json"))
            await asyncio.sleep(0)
            return wire._writer.transport.is_closing()

        await until(closed, "the connection stays")
    assert await serves(service)


async def test_a_message_in_any_number_of_empty_frames_closes_the_channel(patient: ServiceThread):
    """They are no bytes, and so within every bound of bytes."""
    async with Wire(patient.url) as wire:
        await wire.upgrade()
        wire.say(frame(2, b"x", last=False) + frame(0, last=False) * 5000)
        assert (1009).to_bytes(2) in await wire.rest()
    assert await serves(patient)


async def test_requests_before_nonsense_are_not_answered_into_a_closed_connection(
    patient: ServiceThread,
):
    """The application is told that nobody listens, before it writes."""
    for _ in range(20):
        async with Wire(patient.url) as wire:
            wire.say(post("/v1/acquire", TAKE) * 3 + b"nonsense\r\n\r\n")
            await wire.rest()
    for _ in range(20):
        async with Wire(patient.url) as wire:
            wire.say(post("/v1/acquire", TAKE))
            wire.end()
            await wire.rest()
    assert await serves(patient)


async def test_text_that_is_none_closes_the_channel_even_behind_a_goodbye(patient: ServiceThread):
    """Both may come in one piece."""
    for more in (b"", frame(8, (1000).to_bytes(2))):
        async with Wire(patient.url) as wire:
            await wire.upgrade()
            wire.say(frame(1, b"\xff\xfe") + more)
            assert await wire.rest() != b""
    assert await serves(patient)


@pytest.mark.parametrize(
    "sent",
    [b"\x81", frame(1, b"x" * 50)[:20], frame(2, b"x", last=False)],
    ids=["half a head", "half a frame", "half a message"],
)
async def test_a_message_that_does_not_come_closes_the_channel(service: ServiceThread, sent: bytes):
    """As a body would."""
    async with Wire(service.url) as wire:
        await wire.upgrade()
        wire.say(sent)
        assert (1008).to_bytes(2) in await wire.rest()
    assert await serves(service)


async def test_a_channel_on_which_nothing_is_said_stays(service: ServiceThread):
    """Deadlines are for what has begun."""
    async with Wire(service.url) as wire, Wire(service.url) as other:
        await wire.upgrade()
        await other.rest()  # whose head has not come in the same time
        wire.say(frame(1, b'{"id": 1, "op": "check", "resource": "p/m", "tokens": 1}'))
        assert (await wire.hear(2))[0] == 0x81


async def test_who_does_not_speak_tls_is_closed(start: Start, monkeypatch: pytest.MonkeyPatch):
    """A connection counts from its handshake on, which therefore has its time."""
    monkeypatch.setattr("limiter_service.event_loop.HANDSHAKE", 0.3)
    service = start(
        tls_certificate=CERTIFICATES / "service.pem", tls_key=CERTIFICATES / "service.key"
    )
    async with Wire(service.url) as wire:
        assert await wire.rest() == b""


def test_bad_requests_cannot_fill_the_log():
    """One line a second, whatever comes; errors that nobody provokes are all told."""
    seldom = Seldom()

    def told(level: int, at: float) -> bool:
        record = logging.LogRecord("x", level, "", 0, "words", None, None)
        record.created = at
        return seldom.filter(record)

    heard = [at / 10 for at in range(50) if told(logging.WARNING, at / 10)]
    assert heard == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert all(told(logging.ERROR, 4.1) for _ in range(5))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_no_address_and_no_crowd_has_more_than_its_connections(
    steps: list[tuple[bool, int, int]],
):
    """Counts follow who is there, in whatever order they come and go."""
    guests, there = Guests(8, 3), dict[tuple[int, int], int]()
    for comes, host, number in steps:
        name = host, number
        if comes and name not in there:
            of_host = sum(1 for each in there.values() if each == host)
            allowed = len(there) < 8 and of_host < 3
            assert guests.enter(name, f"10.0.0.{host}") is allowed
            if allowed:
                there[name] = host
        elif not comes:
            there.pop(name, None)
            guests.leave(name)
        assert len(guests) == len(there)


def test_proxies_may_have_more():
    """Many callers stand behind their address, which they bound themselves."""
    guests = Guests(100, 2, networks("10.0.0.0/8, 192.0.2.7, proxy.example"))
    assert [guests.enter(n, "10.1.2.3") for n in range(4)] == [True] * 4
    assert [guests.enter(n, "192.0.2.7") for n in range(10, 14)] == [True] * 4
    assert [guests.enter(n, "192.0.2.8") for n in range(20, 24)] == [True, True, False, False]
    assert [guests.enter(n, "") for n in range(30, 34)] == [True, True, False, False]
    assert networks("*")[0].num_addresses == 2**32


@pytest.mark.parametrize(
    ("files", "expected"),
    [(None, (10_000, 2500)), (1024, (768, 576)), (20_000, (10_000, 2500)), (100, (16, 12))],
)
def test_connections_fit_into_the_files_that_a_process_may_open(
    files: int | None, expected: tuple[int, int]
):
    """And no address takes all of them."""
    assert most_of(10_000, 2500, files) == expected


def test_addresses_of_one_network_are_one():
    """Whoever has a /64 has all of its addresses."""
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:1")
    assert neighbourhood("2001:db8:0:1::1") != neighbourhood("2001:db8::1")
    assert neighbourhood("::ffff:192.0.2.1") != neighbourhood("::ffff:192.0.2.2")
