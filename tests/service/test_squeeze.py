"""Streams in gzip: valid whole and in part, packed once for all who read them."""

import gzip
import zlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from tests_support.servers import Server
from tests_support.service import ServiceProcess, in_process

from limiter_service.engine.broadcast import message
from limiter_service.routes import live
from limiter_service.squeeze import Squeezed, accepts, pack
from limiter_wire import Event

MODELS = ", ".join(f"m{i}: {{rpm: 9}}" for i in range(40))
CONFIG = f"pools: {{p: {{models: {{{MODELS}}}}}}}"


@given(st.lists(st.binary(max_size=3000), max_size=8))
def test_what_is_packed_once_fits_into_every_stream(messages: list[bytes]):
    """Whichever messages a reader has missed; each is readable as soon as it has come."""
    shared = [(each, pack(each)) for each in messages]
    for mine in (shared, shared[1:], shared[::2]):
        stream, reader = Squeezed(), zlib.decompressobj(16 + zlib.MAX_WBITS)
        whole = stream.begin()
        reader.decompress(whole)
        for text, packed in mine:
            part = stream.add(text, packed)
            assert reader.decompress(part) == text
            whole += part
        assert gzip.decompress(whole + stream.end()) == b"".join(text for text, _ in mine)


@pytest.mark.parametrize(
    ("header", "reads"),
    [
        ("gzip", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("gzip, deflate, br, zstd", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("x-gzip", False),
        ("identity", False),
        ("", False),
        (None, False),
    ],
)
def test_who_reads_it_says_so(header: str | None, reads: bool):
    """In the words of HTTP."""
    assert accepts(header) is reads


async def test_both_ways_to_read_say_the_same(server: Server, db: redis.Redis, tmp_path: Path):
    """A look in gzip is a whole file of it, and a fraction of the bytes."""
    file = tmp_path / "pools.yaml"
    file.write_text(CONFIG)
    async with (
        in_process(server.url, file, allow_anonymous=True) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        sizes = {}
        for encoding in ("identity", "gzip"):
            headers = {"accept-encoding": encoding}
            async with client.stream("GET", "/v1/live?follow=false", headers=headers) as answer:
                raw = b"".join([part async for part in answer.aiter_raw()])
            assert answer.headers["vary"] == "accept-encoding"
            assert answer.headers.get("content-encoding", "identity") == encoding
            text = gzip.decompress(raw) if encoding == "gzip" else raw
            assert text.count(b"event: live\n") == 1
            assert text.count(b'"resource":"p/m39"') >= 2
            sizes[encoding] = len(raw)
    assert sizes["gzip"] * 8 < sizes["identity"]


def test_a_moment_is_read_as_soon_as_it_is_told(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
):
    """Over a real connection, which does not end."""
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", server.url)
    with (
        ServiceProcess(*arguments) as running,
        httpx.Client(base_url=running.url, timeout=20) as client,
        client.stream("GET", "/v1/live", headers={"accept-encoding": "gzip"}) as stream,
    ):
        assert stream.headers["content-encoding"] == "gzip"
        lines = (line for line in stream.iter_lines() if line.startswith("event: "))
        assert [next(lines) for _ in range(3)] == ["event: past", *["event: live"] * 2]


async def test_a_moment_is_packed_once_for_all():
    """However many read it, they are handed the same bytes."""
    value = Event(time=1.0, type="reset")
    told = message("happened", value)

    async def blocks() -> AsyncGenerator[live.Block]:
        yield b"mine", None
        yield b"text", told

    streams = [[part async for part in live._squeezed(blocks())] for _ in range(3)]
    assert {gzip.decompress(b"".join(each)) for each in streams} == {b"minetext"}
    assert len({id(each[2]) for each in streams}) == 1
    assert len({id(each[1]) for each in streams}) == 3
