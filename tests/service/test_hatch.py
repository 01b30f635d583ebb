"""Ordinary requests are answered at the connection: but for the time it takes, nobody can tell."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis
import uvicorn
from tests_support.keys import ADMIN, bearer, make, revoke
from tests_support.patient import ServiceThread
from tests_support.servers import Server, silent
from tests_support.service import http_client, in_process
from tests_support.waiting import until
from tests_support.wire import Wire, post, request
from uvicorn.server import ServerState

from limiter_service.connection import Protocol
from limiter_service.engine import ids
from limiter_service.front import Front
from limiter_service.guests import GUESTS, Guests
from limiter_service.hatch import HATCH
from limiter_service.store.keys import Keys
from limiter_service.store.packing import unpack

CONFIG = """
pools:
  p:
    models:
      m: {rpm: 100000, tpm: 1000000}
      few: {rpm: 1}
      'odd%s"': {rpm: 100000}
  slots: {models: {m: {concurrency: 1}}}
  waits: {models: {m: {concurrency: 1}}}
  leaves: {models: {m: {concurrency: 1}}}
  other: {models: {m: {rpm: 100000}}}
"""
TAKE = {"resource": "p/m", "tokens": 1}
SETTLE = {"usage": {"input_tokens": 1, "output_tokens": 1}}

Start = Callable[..., ServiceThread]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pools file."""
    path = tmp_path_factory.mktemp("hatch") / "pools.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def running(own_store: Server, config: Path) -> Iterator[ServiceThread]:
    """A service that everybody may call."""
    with ServiceThread(own_store.url, config) as service:
        yield service


@pytest.fixture
def service(running: ServiceThread, own_store: Server) -> ServiceThread:
    """The same, with all budgets as new, a hatch that knows nothing, and nobody counted."""
    with redis.Redis(unix_socket_path=str(own_store.socket)) as connection:
        connection.flushall()
    running.hatch.heads.known.clear()
    running.hatch.heads._met.clear()
    running.entrance.entered.clear()
    return running


@pytest.fixture
async def wire(service: ServiceThread) -> AsyncIterator[Wire]:
    """A connection on which the models that are asked for are known: the first of each is asked
    what the store has learned of it.
    """
    async with Wire(service.url) as wire:
        for model in ("p/m", "p/few", 'p/odd%s"', "slots/m"):
            wire.say(post("/v1/check", {"resource": model, "tokens": 1}))
            assert (await wire.answer())[0] == 200
        service.entrance.entered.clear()
        yield wire


@pytest.fixture
def start(own_store: Server, config: Path) -> Iterator[Start]:
    """Start a service with settings."""
    with contextlib.ExitStack() as stack:

        def started(keep_alive: float = 75, **settings: Any) -> ServiceThread:
            service = ServiceThread(own_store.url, config, **settings)
            service.keep_alive(keep_alive)
            return stack.enter_context(service)

        yield started


def told(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, Any]]:
    """The status of an answer, and what its body says."""
    status, headers, body = answer
    packed = headers["content-type"] == "application/msgpack"
    return status, msgspec.msgpack.decode(body) if packed else json.loads(body)


async def by_the_application(
    service: ServiceThread, wire: Wire, asked: dict[str, Any], *lines: str
) -> tuple[int, dict[str, str], bytes]:
    """What the application answers: with a query the path is not the hatch's."""
    before = len(service.entrance.entered)
    wire.say(post("/v1/acquire?", asked, *lines))
    found = await wire.reply()
    assert len(service.entrance.entered) == before + 1
    return found


# What is answered there


async def test_an_ordinary_request_does_not_enter_the_application(
    service: ServiceThread, wire: Wire
):
    """Neither an acquire nor a settle, nor a refusal for want of budget."""
    wire.say(post("/v1/acquire", TAKE))
    status, granted = await wire.answer()
    assert (status, granted["granted"]) == (200, True)
    wire.say(post("/v1/settle", {"lease": granted["lease"], **SETTLE}))
    assert (await wire.answer())[1]["settled"] is True
    few = {"resource": "p/few", "tokens": 1}
    wire.say(post("/v1/acquire", few))
    assert (await wire.answer())[0] == 200
    wire.say(post("/v1/acquire", few))
    status, headers, body = await wire.reply()
    assert (status, json.loads(body)["code"]) == (429, "rate_limited")
    assert int(headers["retry-after"]) >= 1
    assert service.entrance.entered == []


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
@pytest.mark.parametrize("model", ["p/m", "p/few", "slots/m", 'p/odd%s"', "p/unknown"])
async def test_an_answer_is_the_applications(
    service: ServiceThread, wire: Wire, model: str, accept: str
):
    """The same status, headers and fields; only what is left differs, and what has a name."""
    asked = {"resource": model, "tokens": 1}
    lines = (f"accept: {accept}", "x-request-id: mine")
    if model in {"p/few", "slots/m"}:  # what is compared is a refusal, of which there may be two
        await by_the_application(service, wire, asked)
    wire.say(post("/v1/acquire", asked, *lines))
    here = await wire.reply()
    there = await by_the_application(service, wire, asked, *lines)
    assert [*here[1]] == [*there[1]]
    for name in here[1].keys() - {"ratelimit", "content-length", "retry-after-ms"}:
        assert here[1][name] == there[1][name], name
    (status, ours), (status_, theirs) = told(here), told(there)
    assert (status, [*ours]) == (status_, [*theirs])
    assert ours.keys() & {"lease", "code"}
    for name in ours.keys() - {"lease", "limits", "retry_after", "detail"}:
        assert ours[name] == theirs[name], name


async def test_an_id_of_the_callers_comes_back_if_it_is_usable(wire: Wire):
    """Else it gets one."""
    seen = []
    for line in ("x-request-id: mine", "x-request-id: not mine", "x-nothing: x"):
        wire.say(post("/v1/acquire", TAKE, line))
        seen.append((await wire.reply())[1]["x-request-id"])
    assert seen[0] == "mine"
    assert all(len(each) == 16 for each in seen[1:])
    assert seen[1] != seen[2]


# Heads that are known


async def test_a_head_is_known_when_it_came_twice(service: ServiceThread, wire: Wire):
    """One that nobody repeats takes no place."""
    for n in range(3):
        wire.say(post("/v1/acquire", TAKE, f"traceparent: {n}"))
        assert (await wire.answer())[0] == 200
    assert service.hatch.heads.known == {}
    for _ in range(3):
        wire.say(post("/v1/acquire", TAKE))
        assert (await wire.answer())[0] == 200
    assert len(service.hatch.heads.known) == 1
    assert service.entrance.entered == []


async def test_heads_are_known_whichever_connection_they_come_over(
    service: ServiceThread, wire: Wire
):
    """And though others come between: clients acquire and settle by turns."""
    for n in range(3):
        wire.say(post("/v1/acquire", TAKE))
        _, granted = await wire.answer()
        async with Wire(service.url) as other:
            other.say(post("/v1/settle", {"lease": granted["lease"], **SETTLE}))
            assert (await other.answer())[0] == 200
        assert len(service.hatch.heads.known) == (2 if n else 0)
    assert service.entrance.entered == []


async def test_what_is_not_ordered_makes_no_head_known(service: ServiceThread, wire: Wire):
    """Whoever may not, or asks for what nobody has heard of, takes no place."""
    for _ in range(3):
        wire.say(post("/v1/acquire", {"resource": "p/unknown", "tokens": "many"}))
        assert (await wire.answer())[0] == 422
    assert service.hatch.heads.known == {}


async def test_what_comes_after_a_known_head_is_read_as_ever(service: ServiceThread, wire: Wire):
    """A body in pieces, two requests at once, another one: the head alone says nothing."""
    whole = post("/v1/acquire", TAKE)
    for _ in range(3):
        wire.say(whole)
        assert (await wire.answer())[0] == 200
    for said in (whole[:-5], whole[-5:]):
        wire.say(said)
        await wire.said()
        await until_read(service)
    assert (await wire.answer())[0] == 200
    wire.say(whole + request("GET", "/livez") + whole)
    assert [(await wire.answer())[0] for _ in range(3)] == [200] * 3
    wire.say(whole)
    assert (await wire.answer())[0] == 200


async def until_read(service: ServiceThread) -> None:
    """Return when the service has taken in what was sent: it has answered somebody since."""
    async with httpx.AsyncClient(timeout=20) as client:
        assert (await client.get(f"{service.url}/livez")).status_code == 200


@pytest.mark.parametrize("seed", range(12))
async def test_requests_are_answered_in_order_however_they_are_cut(wire: Wire, seed: int):
    """Whatever arrives together, each answer is to the next request."""
    draw = random.Random(seed)
    names = [f"{seed}-{n}" for n in range(24)]
    wire_text = b"".join(
        post("/v1/acquire", {**TAKE, "request_id": name}, *draw.sample(["a: b", "c: d"], n % 3))
        for n, name in enumerate(names)
    )
    if seed % 3 == 0:  # each by itself, so that heads are known
        cuts = [at for at in range(1, len(wire_text)) if wire_text.startswith(b"POST ", at)]
    else:
        cuts = sorted(draw.sample(range(1, len(wire_text)), draw.randint(0, 40)))
    seen = []

    async def listen() -> None:
        for _ in names:
            status, granted = await wire.answer()
            assert status == 200
            ref = ids.decode(granted["lease"])
            assert ref is not None
            seen.append(ref.request_id)

    listening = asyncio.create_task(listen())
    for begin, end in itertools.pairwise([0, *cuts, len(wire_text)]):
        wire.say(wire_text[begin:end])
        await asyncio.sleep(0)
    await listening
    assert seen == names


# What is not plain


@pytest.mark.parametrize(
    ("path", "asked", "lines", "status"),
    [
        ("/v1/acquire?x=1", TAKE, [], 200),
        ("/v1/acquire", TAKE, ["idempotency-key: one"], 200),
        ("/v1/acquire", TAKE, ["origin: http://elsewhere"], 403),
        ("/v1/acquire", TAKE, ["authorization: Bearer nonsense"], 200),
        ("/v1/acquire", TAKE, ["content-type: text/plain"], 415),
        ("/v1/acquire", {"resource": "p/m", "tokens": "x"}, [], 422),
        ("/v1/acquire", {"resource": "q/m", "tokens": 1}, [], 404),
        ("/v1/acquire", {**TAKE, "worker": "x" * 70_000}, [], 413),
        ("/v1/acquire", TAKE, ["x-long: " + "x" * 17_000], 431),
        ("/v1/settle", {"lease": "nonsense"}, [], 404),
    ],
)
async def test_what_is_not_plain_is_the_applications(
    service: ServiceThread,
    wire: Wire,
    path: str,
    asked: dict[str, Any],
    lines: list[str],
    status: int,
):
    """It sees all of it, as if there were no hatch, and the connection goes on."""
    for _ in range(3):
        wire.say(post(path, asked, *lines))
        assert (await wire.answer())[0] == status
    assert len(service.entrance.entered) == 3
    wire.say(post("/v1/acquire", TAKE))
    assert (await wire.answer())[0] == 200
    assert len(service.entrance.entered) == 3


async def test_a_body_beyond_the_bound_is_refused(start: Start):
    """Though all of it has come."""
    service = start(max_body=1024)
    async with Wire(service.url) as wire:
        wire.say(post("/v1/acquire", {**TAKE, "more": "x" * 1024}))
        assert (await wire.answer())[0] == 413
    assert service.entrance.entered == ["/v1/acquire"]


async def test_a_body_that_is_awaited_is_asked_for(service: ServiceThread, wire: Wire):
    """`Expect: 100-continue`, and a body in chunks."""
    body = json.dumps(TAKE).encode()
    length = f"content-length: {len(body)}"
    wire.say(request("POST", "/v1/acquire", length, "Expect: 100-Continue"))
    assert (await wire.hear(25)).startswith(b"HTTP/1.1 100 Continue")
    wire.say(body)
    assert (await wire.answer())[0] == 200
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    wire.say(request("POST", "/v1/acquire", "transfer-encoding: chunked", body=chunks))
    assert (await wire.answer())[0] == 200
    assert service.entrance.entered == ["/v1/acquire"] * 2


@pytest.mark.parametrize(
    ("version", "said"), [(b"1", "close"), (b"0", "close"), (b"0", "keep-alive")]
)
async def test_a_connection_that_is_to_end_ends(service: ServiceThread, version: bytes, said: str):
    """Where the client says so, or its HTTP is old."""
    whole = post("/v1/acquire", TAKE, f"connection: {said}")
    whole = whole.replace(b"HTTP/1.1", b"HTTP/1." + version)
    async with Wire(service.url) as wire:
        wire.say(whole)
        status, headers, _ = await wire.reply()
        assert (status, headers["connection"]) == (200, "close")
        assert await wire.rest() == b""


async def test_a_pipe_of_requests_stays_in_order_whoever_answers(
    service: ServiceThread, wire: Wire
):
    """The application and the hatch take turns."""
    probe = request("GET", "/livez")
    wire.say(post("/v1/acquire", TAKE) + probe + post("/v1/acquire", TAKE) + probe)
    seen = [[*(await wire.answer())[1]] for _ in range(4)]
    assert seen[0] == seen[2]
    assert seen[1] == seen[3]
    assert "lease" in seen[0]
    assert "lease" not in seen[1]
    assert service.entrance.entered == ["/livez", "/v1/acquire", "/livez"]


# What takes longer


async def test_what_has_to_wait_goes_on_in_the_application(service: ServiceThread, wire: Wire):
    """It was begun at the hatch: it enters once, under the same name, and waits."""
    slot = {"resource": "waits/m", "tokens": 1}
    wire.say(post("/v1/acquire", slot))
    _, first = await wire.answer()
    service.entrance.entered.clear()
    async with Wire(service.url) as other:
        other.say(post("/v1/acquire", {**slot, "max_wait": 60, "request_id": "patient"}))
        await until(lambda: held(service, 1), "nobody waits")
        wire.say(post("/v1/settle", {"lease": first["lease"], **SETTLE}))
        assert (await wire.answer())[0] == 200
        status, granted = await other.answer()
    assert (status, granted["granted"]) == (200, True)
    ref = ids.decode(granted["lease"])
    assert ref is not None
    assert ref.request_id == "patient"
    assert service.entrance.entered == ["/v1/acquire"]


async def test_whoever_waits_and_hangs_up_is_waited_for_no_more(service: ServiceThread, wire: Wire):
    """Though its request came in at the hatch."""
    slot = {"resource": "leaves/m", "tokens": 1}
    wire.say(post("/v1/acquire", slot))
    assert (await wire.answer())[0] == 200
    async with Wire(service.url) as other:
        other.say(post("/v1/acquire", {**slot, "max_wait": 60, "hold": 60}))
        await until(lambda: held(service, 1), "nobody waits")
    await until(lambda: held(service, 0), "it is held though it is gone")


async def held(service: ServiceThread, count: int) -> bool:
    """Whether so many are held."""
    return service.state.engine.passes.held == count


async def until_settled(server: Server, name: str) -> None:
    """Return when the store says that the lease of that id was settled (lua/lib/lease)."""
    lease = ids.decode(name)
    assert lease is not None
    key = Keys(lease.pool).lease(lease.tenant, lease.request_id)
    with redis.Redis(unix_socket_path=str(server.socket)) as store:

        async def is_settled() -> bool:
            text = store.get(key)
            return isinstance(text, bytes) and unpack(text)[5] > 0

        await until(is_settled, "the lease is not settled")


async def test_a_report_counts_though_its_caller_is_gone(
    service: ServiceThread, wire: Wire, own_store: Server
):
    """The store hears of it before it answers, or it is told again."""
    wire.say(post("/v1/acquire", TAKE))
    _, granted = await wire.answer()
    report = post("/v1/settle", {"lease": granted["lease"], **SETTLE})
    with silent(own_store):
        async with Wire(service.url) as other:
            other.say(report)
            await until_read(service)
    await until_settled(own_store, granted["lease"])
    wire.say(report)
    assert (await wire.answer())[1]["already_settled"] is True
    assert service.entrance.entered == ["/livez"]


async def test_what_the_store_has_not_answered_goes_on_in_its_place(
    own_store: Server, config: Path
):
    """Under the same name, as if nobody had begun it; the next request of the pipe waits, and its
    body is its own.
    """
    async with in_process(own_store.url, config) as app:
        protocol, line = await protocol_of(app)
        whole = post("/v1/acquire", {**TAKE, "request_id": "next"})
        protocol.data_received(post("/v1/acquire", TAKE) + whole[:-3])
        order = line.lose_answer(protocol)
        protocol.data_received(whole[-3:])
        await until(lambda: line.has_said(2), "there are no answers")
        leases = [
            ids.decode(json.loads(each)["lease"]) for each in line.said if each.startswith(b"{")
        ]
        assert [each.request_id for each in leases if each] == [order.begun.request_id, "next"]
        protocol.connection_lost(None)


async def test_a_report_that_the_store_has_not_answered_counts_though_its_caller_is_gone(
    own_store: Server, config: Path
):
    """It is told again, and nobody hears what comes of it."""
    async with in_process(own_store.url, config) as app:
        protocol, line = await protocol_of(app)
        protocol.data_received(post("/v1/acquire", TAKE))
        await until(lambda: line.has_said(1), "there is no answer")
        lease = json.loads(line.said[-1].partition(b"\r\n\r\n")[2])["lease"]
        protocol.data_received(post("/v1/settle", {"lease": lease, **SETTLE}))
        protocol.eof_received()
        line.lose_answer(protocol)
        protocol.connection_lost(None)

        await asyncio.gather(*app._inner.state.hatch._errands)  # type: ignore[attr-defined]  # FastAPI
        async with http_client(app) as client:
            again = await client.post("/v1/settle", json={"lease": lease, **SETTLE})
        assert again.json()["already_settled"] is True
        assert line.has_said_now(1)


# Who may


async def test_keys_open_the_hatch_and_others_do_not(start: Start):
    """A head that is known opens nothing for a key that was revoked."""
    service = start(admin_key=ADMIN, key_prefix="keyed:")
    key = make(service.url, "worker", "acquire")
    (line,) = (f"{name}: {value}" for name, value in bearer(key).items())
    async with Wire(service.url) as wire:
        wire.say(post("/v1/check", TAKE, line))
        assert (await wire.answer())[0] == 200
        service.entrance.entered.clear()
        for _ in range(3):
            wire.say(post("/v1/acquire", TAKE, line))
            assert (await wire.answer())[0] == 200
        assert service.entrance.entered == []
        assert len(service.hatch.heads.known) == 1
        wrong = line[:-1] + ("x" if line[-1] != "x" else "y")
        wire.say(post("/v1/acquire", TAKE, wrong))
        assert (await wire.answer())[0] == 401
        wire.say(post("/v1/acquire", TAKE))
        assert (await wire.answer())[0] == 401
        assert barred(service) == {"invalid": 1, "no_key": 1}
        revoke(service.url, key)
        wire.say(post("/v1/acquire", TAKE, line))
        assert (await wire.answer())[0] == 401
        assert barred(service) == {"invalid": 1, "no_key": 1, "revoked": 1}


async def test_roles_and_bounds_hold_at_the_hatch(start: Start):
    """Each refusal is counted once."""
    service = start(admin_key=ADMIN, key_prefix="keyed:")
    reader = make(service.url, "reader", "read")
    bound = make(service.url, "bound", "acquire", pools=["other"])
    async with Wire(service.url) as wire:
        wire.say(post("/v1/acquire", TAKE, f"authorization: Bearer {reader}"))
        assert (await wire.answer())[0] == 403
        assert barred(service) == {"role": 1}
        line = f"authorization: Bearer {bound}"
        wire.say(post("/v1/acquire", TAKE, line))
        assert (await wire.answer())[0] == 403
        wire.say(post("/v1/acquire", TAKE, f"authorization: Bearer {ADMIN}"))
        _, theirs = await wire.answer()
        wire.say(post("/v1/settle", {"lease": theirs["lease"], **SETTLE}, line))
        assert (await wire.answer())[0] == 403
        assert barred(service) == {"role": 1, "bounds": 2}
        own = {"resource": "other/m", "tokens": 1}
        for _ in range(2):
            wire.say(post("/v1/acquire", own, line))
            status, granted = await wire.answer()
            assert status == 200
        service.entrance.entered.clear()
        wire.say(post("/v1/settle", {"lease": granted["lease"], **SETTLE}, line))
        assert (await wire.answer())[0] == 200
        assert service.entrance.entered == []


def barred(service: ServiceThread) -> dict[str, int]:
    """Who was turned away, by reason."""
    return {why: count for why, count in service.keyring.turnstile.counts.items() if count}


# How connections end


async def test_a_connection_on_which_nothing_is_asked_is_closed(start: Start):
    """However often it was asked before."""
    service = start(keep_alive=0.2)
    async with Wire(service.url) as wire:
        for _ in range(3):
            wire.say(post("/v1/acquire", TAKE))
            assert (await wire.answer())[0] == 200
        assert await wire.rest() == b""


async def test_a_server_that_stops_answers_what_was_ordered(start: Start, own_store: Server):
    """And says that the connection ends with that."""
    service = start()
    async with Wire(service.url) as wire:
        for _ in range(2):
            wire.say(post("/v1/acquire", TAKE))
            assert (await wire.answer())[0] == 200
        service.entrance.entered.clear()
        with silent(own_store):
            wire.say(post("/v1/acquire", TAKE))
            await until_read(service)
            stopping = asyncio.create_task(asyncio.to_thread(service.stop))
            await until(lambda: refused_there(service), "it does not stop")
        status, headers, _ = await wire.reply()
        assert (status, headers["connection"]) == (200, "close")
        assert await wire.rest() == b""
        await stopping
    assert service.entrance.entered == ["/livez"]


async def refused_there(service: ServiceThread) -> bool:
    """Whether the server has begun to stop: it tells connections first."""
    return service._server.should_exit and not service._server.servers[0].is_serving()


class Clock:
    """A loop whose time is told, with its timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        """What time it is."""
        return self.now

    def call_later(self, seconds: float, then: Callable[[], None]) -> object:
        """Set a timer, which nobody cancels."""
        self.timers.append((self.now + seconds, then))
        return self.timers[-1]

    def pass_until(self, now: float) -> None:
        """Let time pass, and call whoever has waited for it."""
        self.now = now
        due = [timer for timer in self.timers if timer[0] <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for _, then in due:
            then()


class Line(asyncio.Transport):
    """A connection that somebody may close, and what was said on it."""

    closed = False
    protocol: Protocol

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes] = []

    def write(self, data: Any) -> None:
        """Say something."""
        self.said.append(data)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who reads."""
        return self.protocol

    def pause_reading(self) -> None:
        """Read on: whoever says something here knows when."""

    def resume_reading(self) -> None:
        """Read on."""

    def has_said_now(self, answers: int) -> bool:
        """Whether so many were given."""
        return sum(each.count(b"HTTP/1.1 200") for each in self.said) == answers

    async def has_said(self, answers: int) -> bool:
        """The same, to be waited for."""
        return self.has_said_now(answers) and self.said[-1].endswith(b"}")

    def lose_answer(self, protocol: Protocol) -> Any:
        """The order under way, whose answer of the store is lost."""
        order: Any = protocol._answering
        order.begun.set_exception(ConnectionResetError("the connection broke"))
        return order

    def close(self) -> None:
        """Close it."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether somebody has."""
        return self.closed

    def abort(self) -> None:
        """Break it off."""


async def protocol_of(app: Front) -> tuple[Protocol, Line]:
    """A connection to an application in this process, which knows what it will be asked for."""
    async with http_client(app) as client:
        assert (await client.post("/v1/acquire", json=TAKE)).status_code == 200
    served: Any = app
    config = uvicorn.Config(served, lifespan="off", log_config=None, access_log=False)
    hatch = app._inner.state.hatch  # type: ignore[attr-defined]  # a FastAPI application
    line = Line()
    line.protocol = Protocol(config, ServerState(), {GUESTS: Guests(), HATCH: hatch})
    line.protocol.connection_made(line)
    return line.protocol, line


def test_a_pause_begins_with_the_last_answer():
    """One timer serves all pauses: it looks when that was, and goes on for as long as is left."""
    config = uvicorn.Config(print, lifespan="off", log_config=None, timeout_keep_alive=75)
    clock, line = Clock(), Line()
    protocol = Protocol(config, ServerState(), {GUESTS: Guests()}, clock)
    protocol.connection_made(line)
    clock.timers.clear()  # that of the first head
    protocol.on_response_complete()
    clock.now = 70.0
    protocol.on_response_complete()
    assert [at for at, _ in clock.timers] == [75.0]
    clock.pass_until(75.0)
    assert not line.closed
    assert [at for at, _ in clock.timers] == [145.0]
    clock.pass_until(145.0)
    assert line.closed
