"""WS /v1/channel as any client sees it: real sockets, real frames."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests_support.patient import ServiceThread
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from tests_support.talk import Talk, connect, take, timeless
from tests_support.waiting import until
from websockets.exceptions import InvalidStatus

from client_sdk import Limiter
from limiter_service.app import create_app
from limiter_service.pools import Pools
from limiter_service.settings import Settings

Start = Callable[..., ServiceThread]


@pytest.fixture(params=["json", "msgpack"])
async def talk(request: pytest.FixtureRequest, service: ServiceThread) -> AsyncIterator[Talk]:
    """A client of each kind."""
    async with connect(service.channel, compression=None, max_size=None) as connection:
        yield Talk(connection, text=request.param == "json")


@pytest.fixture
async def client(service: ServiceThread) -> AsyncIterator[httpx.AsyncClient]:
    """The same service over HTTP."""
    async with httpx.AsyncClient(base_url=service.url) as http:
        yield http


async def test_every_operation_works_as_on_its_route(talk: Talk, client: httpx.AsyncClient):
    """The fields of the answer are those of the route, beside id and status."""
    fields = {"resource": "p/m", "tokens": 10, "request_id": "r"}
    granted = await talk.ask("acquire", **fields)
    assert granted.pop("status") == 200
    repeated = (await client.post("/v1/acquire", json=fields)).json()
    assert timeless(granted) == timeless(repeated)
    checked = await talk.ask("check", "a", resource="p/m", tokens=991)
    assert checked.pop("status") == 200
    alike = (await client.post("/v1/check", json=fields | {"tokens": 991})).json()
    assert timeless(checked) == timeless(alike)
    assert checked["would_fit"] == 990
    lease = granted["lease"]
    renewed = await talk.ask("renew", lease=lease, usage={"input_tokens": 15}, ttl=60)
    assert renewed == {
        "status": 200,
        "lease": lease,
        "expires_in": 60.0,
        "charged": {"tokens": 15, "concurrency": 1},
    }
    settled = await talk.ask("settle", lease=lease, usage={"input_tokens": 4})
    assert settled.pop("status") == 200
    again = (await client.post("/v1/settle", json={"lease": lease})).json()
    assert again == settled | {"already_settled": True}


async def test_refusals_have_the_bodies_of_the_routes(talk: Talk, client: httpx.AsyncClient):
    """Status, code and everything else."""
    for op, fields in [
        ("acquire", {"resource": "p/m", "tokens": 2000}),
        ("acquire", {"resource": "p/m", "tokens": -1}),
        ("acquire", {"resource": "p/nobody", "tokens": 1}),
        ("check", {"resource": "p/m"}),
        ("settle", {"lease": "nobody"}),
        ("renew", {}),
    ]:
        response = await client.post(f"/v1/{op}", json=fields)
        expected = response.json()
        del expected["request_id"]
        assert await talk.ask(op, **fields) == expected
        assert expected["status"] == response.status_code >= 400


async def test_a_message_with_many_frames_is_answered_in_one(talk: Talk):
    """What one tick asks is decided side by side, and said together."""
    await talk.say([take(name, 2) for name in range(40)])
    answers = await talk.hear()
    assert sorted(answer["id"] for answer in answers) == list(range(40))
    assert {answer["status"] for answer in answers} == {200}
    await talk.say([{"id": a["id"], "op": "settle", "lease": a["lease"]} for a in answers])
    assert {answer["status"] for answer in await talk.hear()} == {200}


async def test_one_bad_frame_does_not_spoil_its_neighbours(talk: Talk):
    """It is answered as a bad request is, when its id can be read."""
    await talk.say([{"id": 1, "op": "burn"}, take(2), {"id": "x"}, take(3, tokens="many")])
    answers: dict[Any, Any] = {}
    while len(answers) < 4:
        answers |= {answer["id"]: answer for answer in await talk.hear()}
    codes = {name: (answer["status"], answer.get("code")) for name, answer in answers.items()}
    assert codes == {
        1: (422, "invalid"),
        2: (200, None),
        "x": (422, "invalid"),
        3: (422, "invalid"),
    }


async def test_what_waits_does_not_hold_up_what_comes_after(talk: Talk, service: ServiceThread):
    """Answers come when they are there; a settle makes room and the grant is pushed."""
    lease = (await talk.ask("acquire", resource="p/one", tokens=1))["lease"]
    await talk.say(take(2, resource="p/one", max_wait=60))
    assert (await talk.ask("check", 3, resource="p/m", tokens=1))["would_grant"]
    await talk.say({"id": 4, "op": "settle", "lease": lease})
    answers = {answer["id"]: answer for answer in [await talk.hear(), await talk.hear()]}
    assert answers[4]["settled"]
    assert answers[2]["granted"]


async def test_who_asks_for_news_hears_where_it_stands(talk: Talk):
    """Under its id, with a status that is no answer, before the grant."""
    lease = (await talk.ask("acquire", resource="p/one", tokens=1))["lease"]
    await talk.say(take(2, resource="p/one", max_wait=60, news=True))
    told = await talk.hear()
    assert (told["id"], told["status"], told["waiting"]) == (2, 102, True)
    assert told["queue"]["position"] == 0
    await talk.say({"id": 3, "op": "settle", "lease": lease})
    answers: dict[int, Any] = {}
    while len(answers) < 2:
        heard = await talk.hear()
        if heard["status"] != 102:
            answers[heard["id"]] = heard
    assert answers[2]["granted"]


async def test_a_cancelled_acquire_is_answered_and_takes_nothing(
    talk: Talk, service: ServiceThread
):
    """Its place is free at once; its id may be used again."""
    lease = (await talk.ask("acquire", resource="p/one", tokens=1))["lease"]
    await talk.say(take(2, resource="p/one", max_wait=60))
    await until(lambda: _waiting(service, 1), "nobody waits")
    gone = await talk.ask("cancel", 2)
    assert (gone["status"], gone["code"]) == (499, "cancelled")
    assert (service.engine.waiting, service.engine.called_off) == (0, 1)
    assert (await talk.ask("settle", 2, lease=lease))["status"] == 200
    assert (await talk.ask("acquire", 2, resource="p/one", tokens=1))["status"] == 200


async def test_who_waits_hears_nothing_until_the_wait_is_over(start: Start):
    """The hold limit is for connections that a proxy may cut; who names a hold gets no more."""
    service = start(hold_limit=0.01)
    async with connect(service.channel) as connection:
        talk = Talk(connection, text=False)
        lease = (await talk.ask("acquire", resource="p/one", tokens=1))["lease"]
        await talk.say(take("held", resource="p/one", max_wait=60))
        await until(lambda: _waiting(service, 1), "nobody waits")
        await talk.say(take("polls", resource="p/one", max_wait=60, hold=1000))
        told = await talk.hear()  # for as long as the first one was held by then
        assert (told["id"], told["status"]) == ("polls", 202)
        await talk.say({"id": "settle", "op": "settle", "lease": lease, "usage": {}})
        answers: dict[str, int] = {}
        while len(answers) < 2:
            heard = await talk.hear()
            found = heard if isinstance(heard, list) else [heard]
            answers |= {each["id"]: each["status"] for each in found}
        assert answers == {"settle": 200, "held": 200}


async def test_an_acquire_that_is_cancelled_before_it_has_begun_takes_nothing(
    talk: Talk, service: ServiceThread
):
    """Both come in one message, while somebody waits in the pool: then it has a task, which has
    not begun.
    """
    lease = (await talk.ask("acquire", resource="p/m", tokens=1))["lease"]
    await talk.ask("acquire", resource="p/one", tokens=1)
    await talk.say(take(2, resource="p/one", max_wait=60))
    await until(lambda: _waiting(service, 1), "nobody waits")
    await until(lambda: _busy(service), "no pass has seen who waits")
    settle = {"id": 4, "op": "settle", "lease": lease, "usage": {}}  # it takes others along
    await talk.say([take(3, tokens=400, max_wait=60), settle, {"id": 3, "op": "cancel"}])
    answers: dict[int, int] = {}
    while len(answers) < 2:
        answers |= {each["id"]: each["status"] for each in await talk.hear()}
    assert answers == {3: 499, 4: 200}
    checked = await talk.ask("check", 5, resource="p/m", tokens=1)
    assert checked["would_fit"] == 1000


async def test_cancelling_what_is_over_or_ends_soon_is_no_mistake(talk: Talk):
    """It is not answered; the operation is, as ever."""
    await talk.say({"id": 1, "op": "cancel"})
    await talk.say(take(1))
    await talk.say({"id": 1, "op": "cancel"})
    assert (await talk.hear())["status"] == 200
    assert (await talk.ask("check", 1, resource="p/m", tokens=1))["status"] == 200


async def test_a_client_that_hangs_up_calls_off_what_waits(service: ServiceThread):
    """Nobody gets what nobody waits for."""
    async with connect(service.channel) as connection:
        talk = Talk(connection, text=False)
        await talk.ask("acquire", resource="p/one", tokens=1)
        await talk.say([take(name, resource="p/one", max_wait=60) for name in range(50)])
        await until(lambda: _waiting(service, 50), "they do not wait")
    await until(lambda: _waiting(service, 0), "they wait on")
    assert service.engine.called_off == 50


async def test_a_settle_of_a_client_that_hangs_up_is_on_the_books(
    service: ServiceThread, client: httpx.AsyncClient
):
    """A report is worth finishing when nobody waits for the answer."""
    async with connect(service.channel) as connection:
        talk = Talk(connection, text=False)
        lease = (await talk.ask("acquire", resource="p/one", tokens=1))["lease"]
        service.engine.hold_settles()
        await talk.say({"id": 2, "op": "settle", "lease": lease})
        await talk.say(take(3, resource="p/one", max_wait=60))
        await until(lambda: _waiting(service, 1), "nobody waits")
        connection.transport.abort()
    await until(lambda: _waiting(service, 0), "the client is not missed")
    assert service.engine.settling == 1
    service.engine.let_settles()
    await until(lambda: _fits(client), "the slot did not come back")


async def _fits(client: httpx.AsyncClient) -> bool:
    answer = await client.post("/v1/check", json={"resource": "p/one", "tokens": 1})
    return bool(answer.json()["would_grant"])


async def _waiting(service: ServiceThread, count: int) -> bool:
    return service.engine.waiting == count


async def _busy(service: ServiceThread) -> bool:
    return service.engine.passes.busy("p")


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (b"\xc1", 1007, "not msgpack"),
        ("{", 1007, "not json"),
        ('[{"op": "settle"}]', 1007, "without a readable id"),
        (msgspec.msgpack.encode([take(1)] * 257), 1008, "256 frames"),
        (msgspec.msgpack.encode([take(1), take(1)]), 1008, "id 1 is under way"),
        (b"\xc0" * 70_000, 1009, ""),
        ("x" * 70_000, 1009, ""),
    ],
)
async def test_what_cannot_be_answered_closes_the_channel(
    service: ServiceThread, message: bytes | str, code: int, reason: str
):
    """The code and the reason say why."""
    async with connect(service.channel, compression=None) as connection:
        await connection.send(message)
        ended = await Talk(connection, text=False).end()
        assert ended.rcvd is not None
        assert ended.rcvd.code == code
        assert reason in ended.rcvd.reason


async def test_the_largest_body_is_the_largest_message_on_any_server():
    """The application counts for itself: another server may let more pass."""
    app = create_app(Settings(max_body=1024, allow_anonymous=True), "unix:///nowhere", Pools(None))
    coming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "bytes": b"x" * 1025},
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/channel", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert (sent[1]["code"], "1024 bytes" in sent[1]["reason"]) == (1009, True)


async def test_a_server_without_refused_handshakes_closes_them():
    """An unknown path is refused either way."""
    app = create_app(Settings(), "unix:///nowhere", Pools(None))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/other", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/", {}, 404, "not_found"),
        ("/v1/acquire", {}, 404, "not_found"),
        ("/v1/channel", {f"x-{i}": "x" * 2000 for i in range(9)}, 431, "headers_too_large"),
    ],
)
async def test_other_paths_and_large_heads_are_refused_at_the_handshake(
    service: ServiceThread, path: str, headers: dict[str, str], status: int, code: str
):
    """With the problem that an HTTP request would get."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://127.0.0.1:{service.port}{path}", additional_headers=headers)
    assert caught.value.response.status_code == status
    assert msgspec.json.decode(caught.value.response.body)["code"] == code


async def test_a_page_of_another_origin_opens_no_channel(service: ServiceThread):
    """Browsers would let it: a page in somebody's browser could spend the budget."""
    for origin, allowed in [
        ("http://elsewhere.example", False),
        ("null", False),
        (f"http://127.0.0.1:{service.port}", True),
    ]:
        connecting = connect(service.channel, additional_headers={"origin": origin})
        if allowed:
            async with connecting as connection:
                talk = Talk(connection, text=True)
                assert (await talk.ask("check", resource="p/m", tokens=1))["would_grant"]
            continue
        with pytest.raises(InvalidStatus) as caught:
            await connecting
        assert caught.value.response.status_code == 403
        assert msgspec.json.decode(caught.value.response.body)["code"] == "forbidden"


async def test_a_head_that_nobody_can_read_is_refused(service: ServiceThread):
    """The connection does not stay open."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(service.channel, additional_headers={"x-large": "x" * 10_000})
    assert caught.value.response.status_code == 431


async def test_a_client_that_does_not_read_is_not_read(service: ServiceThread):
    """Its messages stay in the network: memory is bounded by what may be under way."""
    narrow = socket.socket()
    for end, buffer in ((service.listener, socket.SO_SNDBUF), (narrow, socket.SO_RCVBUF)):
        end.setsockopt(socket.SOL_SOCKET, buffer, 65_536)
    narrow.connect(("127.0.0.1", service.port))
    narrow.setblocking(False)
    async with connect(service.channel, sock=narrow, compression=None, max_size=None) as connection:
        talk = Talk(connection, text=False)
        flooding = asyncio.create_task(_flood(talk))
        await until(_still(lambda: len(service.engine.asked)), "everything is read")
        asked = len(service.engine.asked)
        flooding.cancel()
        await asyncio.wait({flooding})
        heard = 0
        while heard < asked:
            heard += len(await talk.hear())
        connection.transport.abort()  # the rest is of no interest


async def _flood(talk: Talk) -> None:
    for first in itertools.count(step=256):
        await talk.say([take(name, 5000) for name in range(first, first + 256)])


def _still(figure: Callable[[], int]) -> Callable[[], Awaitable[object]]:
    """Whether a figure that has begun to grow does so no more: seen a hundred times."""
    seen = [0, 0]

    async def ask() -> bool:
        now = figure()
        seen[:] = [now, seen[1] + 1 if now == seen[0] else 0]
        return now > 0 and seen[1] > 100

    return ask


async def test_too_many_that_wait_are_refused_and_the_rest_is_read(
    service: ServiceThread, monkeypatch: pytest.MonkeyPatch
):
    """A bound by refusal: the settle behind them may be what they wait for."""
    monkeypatch.setattr("limiter_service.routes.channel.MOST_WAITING", 20)
    async with connect(service.channel) as connection:
        talk = Talk(connection, text=True)
        lease = (await talk.ask("acquire", resource="p/one", tokens=1))["lease"]
        await talk.say([take(name, resource="p/one", max_wait=60) for name in range(25)])
        refused = await talk.hear()
        assert [answer["id"] for answer in refused] == [20, 21, 22, 23, 24]
        assert {(answer["status"], answer["code"]) for answer in refused} == {(429, "queue_full")}
        assert all(answer["retry_after"] > 0 for answer in refused)
        await talk.say({"id": 99, "op": "settle", "lease": lease})
        heard = [await talk.hear(), await talk.hear()]
        assert {type(each) for each in heard} == {dict, list}


async def test_a_replica_that_shuts_down_hands_its_callers_over(service: ServiceThread):
    """What waits is told to ask again, what was asked is answered, and the close says why."""
    async with connect(service.channel) as connection:
        talk = Talk(connection, text=False)
        await talk.ask("acquire", resource="p/one", tokens=1)
        await talk.say([take(name, resource="p/one", max_wait=60) for name in range(3)])
        await until(lambda: _waiting(service, 3), "they do not wait")
        await talk.say([take(9)])
        assert (await talk.hear())[0]["status"] == 200
        stopping = asyncio.create_task(asyncio.to_thread(service.stop))
        told = await talk.hear()
        assert [(a["status"], a["code"], a["retry_after"]) for a in told] == [
            (503, "shutting_down", 0.0)
        ] * 3
        ended = await talk.end()
        assert ended.rcvd is not None
        assert (ended.rcvd.code, ended.rcvd.reason) == (1012, "this replica is shutting down")
        await stopping


async def test_a_replica_that_is_drained_hands_its_callers_over(
    service: ServiceThread, client: httpx.AsyncClient
):
    """As one that shuts down does, and it opens no channel until it grants again."""
    async with connect(service.channel) as connection:
        talk = Talk(connection, text=False)
        lease = (await talk.ask("acquire", resource="p/one", tokens=1))["lease"]
        await talk.say([take(name, resource="p/one", max_wait=60) for name in range(3)])
        await until(lambda: _waiting(service, 3), "they do not wait")
        assert (await client.put("/v1/drain", json={"ttl": 60})).status_code == 200
        told = await talk.hear()
        assert [(a["status"], a["code"]) for a in told] == [(503, "shutting_down")] * 3
        ended = await talk.end()
        assert ended.rcvd is not None
        assert ended.rcvd.code == 1012
    with pytest.raises(InvalidStatus) as caught:
        await connect(service.channel).__aenter__()
    assert caught.value.response.status_code == 503
    assert json.loads(caught.value.response.body)["code"] == "shutting_down"
    async with Limiter(service.url) as limiter:  # falls back to HTTP, where settles are taken
        await limiter.observe("p/one", {})
    assert (await client.post("/v1/settle", json={"lease": lease})).status_code == 200
    assert (await client.delete("/v1/drain")).status_code == 200

    async def open_again() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await until(open_again, "it goes on draining")
    async with connect(service.channel) as connection:
        talk = Talk(connection, text=True)
        assert (await talk.ask("acquire", resource="p/m", tokens=1))["status"] == 200


async def test_several_workers_serve_channels(start: Any, store: Server, tmp_path: Path):
    """A connection stays with its worker; the budget is one."""
    arguments = ("--config", str(tmp_path / "pools.yaml"), "--redis-url", store.url)
    with ServiceProcess(*arguments, "--workers", "2") as running:
        address = running.url.replace("http", "ws") + "/v1/channel"
        granted = 0
        for _ in range(4):
            async with connect(address) as connection:
                talk = Talk(connection, text=False)
                await talk.say([take(name, 150) for name in range(2)])
                granted += sum(answer["status"] == 200 for answer in await talk.hear())
        async with connect(address) as connection:
            stopping = asyncio.create_task(asyncio.to_thread(running.stop))
            ended = await Talk(connection, text=False).end()
            assert ended.rcvd is not None
            assert ended.rcvd.code == 1012
            assert await stopping == 0
    assert granted == 6
