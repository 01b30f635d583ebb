"""Faults as a caller sees them on the wire, and the outages that a control endpoint switches."""

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests_support.raw import Seen, post
from tests_support.simulator import simulator
from tests_support.spoken import PROVIDERS, Provider

from limiter_service.provider_sim import InvalidOptionError, SimOptions, create_sim_app
from limiter_service.provider_sim.faults.notation import FaultError, parse, parse_rule
from limiter_service.provider_sim.faults.outages import Outage, Outages, Sight
from limiter_service.provider_sim.wire import TRANSPORT, Wire

FAST = SimOptions(rpm=1_000_000, tpm=1_000_000_000, latency=0, tokens_per_second=1e9)
ROOT = Path(__file__).parents[2]
SIGHT = Sight("openai-chat", "gpt-4o", "a-key")

pytestmark = pytest.mark.asyncio(loop_scope="module")

each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda one: one.name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    """One simulator: no test of this file changes what others of it see."""
    async with simulator(FAST) as address:
        yield address


async def stream(url: str, fault: str, provider: Provider = PROVIDERS[0]) -> Seen:
    """A stream of seven words with a fault in it."""
    headers = {"x_sim_output_tokens": "7", "x_sim_input_tokens": "40"}
    if fault:
        headers["x_sim_fault"] = fault
    return await post(url, provider.stream_path, provider.body(True), **headers)


async def intact(url: str, provider: Provider = PROVIDERS[0]) -> bytes:
    """The same stream as it should be, but for its ids."""
    return (await stream(url, "", provider)).body


def size_of_chunks(body: bytes, count: int) -> int:
    """The bytes of the opening and of so many chunks of output."""
    frames = body.split(b"\n\n")
    return len(b"\n\n".join(frames[: count + 1])) + 2


async def test_a_reset_that_comes_after_the_callers_own_end_is_none():
    """The caller may be faster than the fault that is about to hit it."""
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda _, w: accepted.set_result(w), "127.0.0.1", 0)
    async with server:
        _, mine = await asyncio.open_connection(*server.sockets[0].getsockname())
        theirs = await accepted
        theirs.close()
        await theirs.wait_closed()

        async def nothing() -> MutableMapping[str, Any]:
            return {"type": "http.disconnect"}

        async def nowhere(_: MutableMapping[str, Any]) -> None:
            pass

        wire = Wire({"state": {TRANSPORT: theirs.transport}}, nothing, nowhere)
        await wire.drop(reset=True)
        mine.close()
        await mine.wait_closed()


class TestDrops:
    """Connections that are cut."""

    @each_provider
    @pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
    async def test_after_bytes(self, url: str, provider: Provider, reset: bool) -> None:
        """The body ends after exactly so many bytes, wherever that is."""
        whole = await intact(url, provider)
        for size in (0, 1, 200, len(whole) * 3 // 4):  # two streams may differ by some bytes
            fault = f"drop-after-bytes={size}" + ("; reset" if reset else "")
            seen = await stream(url, fault, provider)
            assert (seen.status, len(seen.body)) == (200, size)
            assert seen.ending == ("reset" if reset else "closed")

    async def test_after_chunks(self, url: str) -> None:
        """The body ends with the last of so many chunks of output."""
        whole = await intact(url)
        for count in (0, 1, 5):
            seen = await stream(url, f"drop-after-chunks={count}")
            assert len(seen.body) == size_of_chunks(whole, count)
            assert seen.ending == "closed"

    @pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
    async def test_before_headers(self, url: str, reset: bool) -> None:
        """Nothing comes at all."""
        seen = await stream(url, "drop-before-headers" + ("; reset" if reset else ""))
        assert (seen.status, seen.body) == (0, b"")
        assert seen.ending == ("reset" if reset else "closed")

    async def test_plain_answers(self, url: str) -> None:
        """A body whose length was announced ends before it."""
        body = PROVIDERS[0].body(False)
        seen = await post(url, PROVIDERS[0].path, body, x_sim_fault="drop-after-bytes=10")
        assert int(seen.headers["content-length"]) > 10
        assert (len(seen.body), seen.ending) == (10, "closed")


class TestStalls:
    """Connections that stay open while nothing comes."""

    async def test_before_headers(self, url: str) -> None:
        """No first byte."""
        seen = await stream(url, "stall-before-headers")
        assert (seen.status, seen.ending) == (0, "open")

    async def test_before_token(self, url: str) -> None:
        """Headers and the opening, and no word."""
        seen = await stream(url, "stall-before-token")
        assert (seen.status, seen.ending) == (200, "open")
        [opening] = seen.body.removesuffix(b"\n\n").split(b"\n\n")
        assert b'"role":"assistant"' in opening

    async def test_in_the_middle(self, url: str) -> None:
        """So many words, and no more."""
        whole = await intact(url)
        seen = await stream(url, "stall-after-chunks=3")
        assert (len(seen.body), seen.ending) == (size_of_chunks(whole, 3), "open")

    @pytest.mark.parametrize(
        "fault",
        [
            "stall-before-headers=0.01",
            "stall-before-token=0.01",
            "stall-after-chunks=3; seconds=0.01",
            "slow-first-token=0.01",
            "hold-open; seconds=0.01",
        ],
    )
    async def test_with_an_end(self, url: str, fault: str) -> None:
        """A stall of some seconds delays a stream and takes nothing from it."""
        seen = await stream(url, fault)
        assert (len(seen.body), seen.ending) == (len(await intact(url)), "complete")

    async def test_held_open(self, url: str) -> None:
        """The end mark comes, and the end of the body does not."""
        seen = await stream(url, "hold-open")
        assert seen.body.endswith(b"data: [DONE]\n\n")
        assert seen.ending == "open"

    async def test_pings(self, url: str) -> None:
        """Pings come, and no word; a count of them ends the stream."""
        seen = await stream(url, "ping-only; every=0.001; count=4")
        assert seen.body.count(b": keep-alive\n\n") == 4
        assert b'"content":"The"' not in seen.body
        assert seen.ending == "complete"
        endless = await asyncio.wait_for(_ping_forever(url), 30)
        assert endless >= 3

    async def test_trickle(self, url: str) -> None:
        """The bytes come in small pieces, and all of them."""
        seen = await stream(url, "trickle=300; every=0.002")
        assert len(seen.body) == len(await intact(url))
        assert seen.pieces > 3


async def _ping_forever(url: str) -> int:
    """Read a stream of pings until there are some, and hang up."""
    headers = {"x-sim-fault": "ping-only; every=0.001"}
    body = PROVIDERS[0].body(True)
    async with (
        httpx.AsyncClient(base_url=url) as http,
        http.stream("POST", PROVIDERS[0].path, json=body, headers=headers) as answer,
    ):
        seen = 0
        async for line in answer.aiter_lines():
            seen += line == ": keep-alive"
            if seen >= 3:
                break
    return seen


class TestDamage:
    """Streams that are not as they should be."""

    @each_provider
    async def test_truncated(self, url: str, provider: Provider) -> None:
        """All words, no finish, no end mark, and a body that ends in order."""
        seen = await stream(url, "truncate", provider)
        heard = provider.stream(seen.body)
        assert heard.text == provider.stream(await intact(url, provider)).text
        assert (heard.finish, heard.ended, seen.ending) == (None, False, "complete")

    async def test_truncated_in_the_middle(self, url: str) -> None:
        """Some words, and an end in order."""
        seen = await stream(url, "truncate-after-chunks=2")
        assert PROVIDERS[0].stream(seen.body).text == "The water"
        assert seen.ending == "complete"

    async def test_without_end_mark(self, url: str) -> None:
        """A finish reason and usage, and no `[DONE]`."""
        seen = await stream(url, "no-terminator")
        heard = PROVIDERS[0].stream(seen.body)
        assert (heard.finish, heard.usage, heard.ended) == ("stop", (40, 7), False)

    @each_provider
    async def test_garbage(self, url: str, provider: Provider) -> None:
        """Something that no parser understands between the frames; the rest is unharmed."""
        seen = await stream(url, "garbage-after-chunks=2", provider)
        with pytest.raises((json.JSONDecodeError, AssertionError)):
            provider.stream(seen.body)
        assert len(seen.body) > len(await intact(url, provider))
        assert seen.ending == "complete"

    @each_provider
    async def test_error_within_a_stream(self, url: str, provider: Provider) -> None:
        """Status 200, some words, and an error as the dialect writes it."""
        seen = await stream(url, "error-after-chunks=2; kind=overloaded", provider)
        assert (seen.status, seen.ending) == (200, "complete")
        words = {
            "anthropic": b'"overloaded_error"',
            "gemini": b'"UNAVAILABLE"',
            "cohere": b'"finish_reason":"ERROR"',
            "mistral": b'"service_tier_capacity_exceeded"',
            "bedrock": b"serviceUnavailableException",
            "ollama": b"server busy",
        }
        assert words.get(provider.name, b'"server_is_overloaded"') in seen.body
        assert b"water" in seen.body
        assert b"gate" not in seen.body

    async def test_two_starts(self, url: str) -> None:
        """The opening comes twice, under two ids, as after a retry between hops."""
        provider = next(one for one in PROVIDERS if one.name == "anthropic")
        seen = await stream(url, "duplicate-start", provider)
        assert seen.body.count(b"event: message_start") == 2
        assert seen.body.count(b"event: message_stop") == 1

    async def test_spliced(self, url: str) -> None:
        """Some words of one answer, and then the whole of another one."""
        seen = await stream(url, "splice-after-chunks=2")
        text = PROVIDERS[0].stream(seen.body).text
        assert text == "The water" + "The water rises behind the gate until"
        ids = {json.loads(line[6:])["id"] for line in seen.body.split(b"\n\n")[:-2]}
        assert len(ids) == 2

    async def test_content_type(self, url: str) -> None:
        """The right body under a wrong name."""
        seen = await stream(url, "content-type=text/plain")
        assert seen.headers["content-type"] == "text/plain"
        assert PROVIDERS[0].stream(seen.body).ended

    async def test_html(self, url: str) -> None:
        """A page with status 200."""
        seen = await stream(url, "html")
        assert (seen.status, seen.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert seen.body.startswith(b"<!DOCTYPE html>")

    @each_provider
    async def test_error_body_with_status_200(self, url: str, provider: Provider) -> None:
        """The body of an error in place of a stream."""
        seen = await stream(url, "error-body=rate-limit", provider)
        assert (seen.status, seen.headers["content-type"]) == (200, "application/json")
        assert isinstance(json.loads(seen.body), dict)

    async def test_gzip(self, url: str) -> None:
        """A compressed stream of which each piece can be read when it comes."""
        seen = await stream(url, "gzip")
        assert seen.headers["content-encoding"] == "gzip"
        assert PROVIDERS[0].stream(gzip.decompress(seen.body)).ended
        cut = await stream(url, "stall-after-chunks=2, gzip")
        text = zlib.decompressobj(31).decompress(cut.body)
        assert (text.count(b'"content":"'), cut.ending) == (3, "open")

    async def test_in_their_order(self, url: str) -> None:
        """Bytes are counted as they are where the fault stands in the list."""
        seen = await stream(url, "gzip, drop-after-bytes=50")
        assert (len(seen.body), seen.ending) == (50, "closed")
        assert seen.body[:2] == b"\x1f\x8b"

    async def test_pings_between_words(self, url: str) -> None:
        """Pings before every word, which are all there."""
        seen = await stream(url, "pings=2")
        assert seen.body.count(b": keep-alive\n\n") == 14
        assert PROVIDERS[0].stream(seen.body).text == "The water rises behind the gate until"

    async def test_status_of_a_proxy(self, url: str) -> None:
        """A status with a page that no provider wrote."""
        seen = await stream(url, "status=502")
        assert (seen.status, seen.headers["content-type"]) == (502, "text/html")

    async def test_in_the_query(self, url: str) -> None:
        """A fault may stand in the query, for clients that set no headers."""
        path = f"{PROVIDERS[0].path}?x-sim-fault=overloaded"
        assert (await post(url, path, PROVIDERS[0].body(True))).status == 503


class TestNotation:
    """How faults are written."""

    @pytest.mark.parametrize(
        "text",
        [
            "explode",
            "drop-after-bytes",
            "drop-after-bytes=-1",
            "drop-after-bytes=x",
            "drop-after-bytes=9..3",
            "status=200",
            "trickle=0",
            "slow-first-token",
            "slow-first-token=nan",
            "truncate=3",
            "error=explosion",
            "gzip; shiny",
            "hold-open; seconds=-1",
        ],
    )
    async def test_what_is_no_fault(self, url: str, text: str) -> None:
        """A fault that cannot be is refused, and the request with it."""
        with pytest.raises(FaultError):
            parse(text)
        seen = await stream(url, text)
        assert seen.status == 400
        assert json.loads(seen.body)["error"]["param"] == "x-sim-fault"

    @pytest.mark.parametrize("text", ["", "gzip @ 2", "gzip @ x", "explode @ 0.1"])
    async def test_what_is_no_rule(self, text: str) -> None:
        """An option that cannot be is refused by its name."""
        with pytest.raises(FaultError):
            parse_rule(text)
        with pytest.raises(InvalidOptionError, match="fault is"):
            SimOptions(fault=(text,))

    async def test_spans(self) -> None:
        """A span gives each request a number of its own out of it."""
        [fault] = parse("drop-after-chunks=3..9")
        chance = random.Random(1)
        assert {fault.drawn(chance).number for _ in range(200)} == set(range(3, 10))

    async def test_every_fault_is_documented(self) -> None:
        """The reference names every fault, and every kind of error that can be asked for."""
        page = (ROOT / "docs" / "reference" / "provider-sim.md").read_text()
        with pytest.raises(FaultError) as caught:
            parse("explode")
        known = str(caught.value).partition("known: ")[2].split(", ")
        assert [name for name in known if f"`{name}" not in page] == []


class TestOutages:
    """What hits which requests, and when."""

    async def test_shares(self) -> None:
        """A standing fault hits its share of requests, and the same ones for one seed."""

        def hits(seed: int) -> list[bool]:
            outages = Outages(["gzip @ 0.25"], seed, 0.0)
            return [bool(outages.faults(SIGHT, "", 0.0)) for _ in range(2000)]

        assert hits(1) == hits(1)
        assert hits(1) != hits(2)
        assert 400 < sum(hits(1)) < 600

    async def test_what_is_asked_goes_first(self) -> None:
        """A request that asks for a fault gets that, and no other."""
        outages = Outages(["gzip"], 0, 0.0)
        assert [f.effect for f in outages.faults(SIGHT, "truncate", 0.0)] == ["truncate"]

    @pytest.mark.parametrize(
        ("outage", "seen"),
        [
            (Outage(fault="gzip"), "xxxxxxxxxx"),
            (Outage(fault="gzip", after=3, lasts=4), "   xxxx   "),
            (Outage(fault="gzip", period=4, up=3), "   x   x  "),
            (Outage(fault="gzip", period=4, up=0), "xxxxxxxxxx"),
            (Outage(fault="gzip", count=2), "xx        "),
            (Outage(fault="gzip", after=2, period=2, up=1), "   x x x x"),
        ],
    )
    async def test_times(self, outage: Outage, seen: str) -> None:
        """An outage begins, ends, and comes and goes as it says."""
        outages = Outages([], 0, 100.0)
        outages.switch([outage], 100.0)
        found = [bool(outages.faults(SIGHT, "", 100.0 + second)) for second in range(10)]
        assert "".join("x" if hit else " " for hit in found) == seen

    @pytest.mark.parametrize(
        ("narrow", "hit"),
        [
            ({"dialect": "openai-chat"}, True),
            ({"dialect": "anthropic"}, False),
            ({"model": "gpt-4o", "key": "a-key"}, True),
            ({"model": "gpt-4o", "key": "another"}, False),
        ],
    )
    async def test_narrowed_down(self, narrow: dict[str, str], hit: bool) -> None:
        """An outage of one dialect, model or key leaves others alone."""
        outages = Outages([], 0, 0.0)
        outages.switch([Outage(fault="gzip", **narrow)], 0.0)  # type: ignore[arg-type]
        assert bool(outages.faults(SIGHT, "", 0.0)) is hit

    async def test_control(self) -> None:
        """Outages are switched on, shown, counted and switched off while it runs."""
        async with simulator(FAST) as url, httpx.AsyncClient(base_url=url) as http:
            body = PROVIDERS[0].body(False)
            switch = {"outages": [{"fault": "overloaded", "model": body["model"]}]}
            assert (await http.post("/sim/faults", json=switch)).status_code == 200
            assert (await http.post(PROVIDERS[0].path, json=body)).status_code == 503
            [shown] = (await http.get("/sim/faults")).json()["outages"]
            assert (shown["active"], shown["hits"]) == (True, 1)
            assert (await http.delete("/sim/faults")).status_code == 204
            assert (await http.post(PROVIDERS[0].path, json=body)).status_code == 200

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b'{"outages": [{"fault": "explode"}]}',
            b'{"outages": [{"fault": "gzip", "rate": 2}]}',
            b'{"outages": [{"fault": "gzip", "period": 0}]}',
            b'{"outages": [{"fault": "gzip", "unknown": 1}]}',
        ],
    )
    async def test_control_refuses_what_cannot_be(self, url: str, body: bytes) -> None:
        """A switch that cannot be read changes nothing."""
        async with httpx.AsyncClient(base_url=url) as http:
            answer = await http.post("/sim/faults", content=body)
            assert answer.status_code == 400
            assert answer.json()["error"]
            assert (await http.get("/sim/faults")).json() == {"outages": []}


class TestCounters:
    """What the simulator counted of whom."""

    async def test_by_key(self) -> None:
        """Requests, their fate and their tokens are counted for each key."""
        options = SimOptions(rpm=4, latency=0, tokens_per_second=1e9)
        async with simulator(options) as url:
            body = PROVIDERS[0].body(False)
            sizes = {"x_sim_input_tokens": "40", "x_sim_output_tokens": "7"}
            key = {"authorization": "Bearer worker-1", **sizes}
            await post(url, PROVIDERS[0].path, body, **key)
            await post(url, PROVIDERS[0].path, body, **key, x_sim_fault="overloaded")
            await post(url, PROVIDERS[0].path, body, **key, x_sim_fault="drop-after-bytes=0")
            await post(url, PROVIDERS[0].path, body, x_api_key="worker-2", **sizes)
            for _ in range(2):
                refused = await post(url, PROVIDERS[0].path, body, x_api_key="worker-2", **sizes)
                assert refused.status == 429
            async with httpx.AsyncClient(base_url=url) as http:
                counters = (await http.get("/sim/counters")).json()
        one, two = counters["by_key"]["worker-1"], counters["by_key"]["worker-2"]
        assert one == {
            "requests": 3,
            "served": 1,
            "refused": 0,
            "failed": 1,
            "dropped": 1,
            "hung_up": 0,
            "running": 0,
            "most_running": 1,
            "input_tokens": 80,
            "output_tokens": 14,
        }
        assert (two["requests"], two["served"], two["refused"]) == (3, 1, 2)
        assert counters["total"]["requests"] == 6
        assert counters["by_fault"] == {"error": 1, "drop-after-bytes": 1}
        assert counters["by_status"] == {"200": 3, "503": 1, "429": 2}

    async def test_long_keys_are_not_shown(self) -> None:
        """A key that may be a real one is shortened."""
        transport = httpx.ASGITransport(create_sim_app(FAST))
        async with httpx.AsyncClient(transport=transport, base_url="http://sim") as http:
            headers = {"x-api-key": "sk-" + "x" * 60 + "last"}
            await http.post(PROVIDERS[0].path, json=PROVIDERS[0].body(False), headers=headers)
            counters = (await http.get("/sim/counters")).json()
        assert list(counters["by_key"]) == ["sk-xxxxx...last"]

    async def test_callers_who_hang_up(self) -> None:
        """A stream that its caller leaves is running until then, and counted as that."""
        async with simulator(FAST) as url, httpx.AsyncClient(base_url=url) as http:
            headers = {"x-sim-fault": "stall-after-chunks=2", "x-sim-output-tokens": "7"}
            body = PROVIDERS[0].body(True)
            async with http.stream("POST", PROVIDERS[0].path, json=body, headers=headers) as one:
                await anext(one.aiter_bytes())
                total = await counted(http)
                assert (total["running"], total["hung_up"]) == (1, 0)
            while (total := await counted(http))["running"]:
                pass
            assert (total["hung_up"], total["served"]) == (1, 0)
            assert total["output_tokens"] == 2


async def counted(http: httpx.AsyncClient) -> dict[str, Any]:
    total: dict[str, Any] = (await http.get("/sim/counters")).json()["total"]
    return total


async def test_who_goes_away_while_it_sends_is_no_error():
    """No traceback for somebody who hangs up; under a server it would be in the log."""
    app = create_sim_app(FAST)
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"",
        "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:  # as ASGI wants
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 400
