"""Scripts that a store does not know: their texts travel once, however many call them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from redis import exceptions

from limiter_service.store.client import Client
from limiter_service.store.scripts import load

CALLED = ("check", "renew")


class Nodes:
    """A link to servers that have forgotten their scripts, and answer each call with its key."""

    sharded = False

    def __init__(self, count: int, *, flags: bool) -> None:
        self._known: list[set[str]] = [set() for _ in range(count)]
        self._flags = flags
        self.texts: Counter[str] = Counter()

    def place(self, key: str) -> str:
        """All are one place, as before it is known who owns what."""
        return key[:0]

    async def send(self, _place: str, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Each to the server that owns its key."""
        await asyncio.sleep(0)
        return [self._answer(*command) for command in commands]

    def _answer(self, word: str, what: str, _: int, key: str, *__: object) -> Any:
        known = self._known[int(key) % len(self._known)]
        if word == "EVALSHA":
            found = what in known
            return key if found else exceptions.NoScriptError("No matching script", "NOSCRIPT")
        (script,) = (s for name in CALLED if what in ((s := load(name)).text, s.plain.text))
        if what == script.text and not self._flags:
            return exceptions.ResponseError("user_script:1: unexpected symbol near '#'")
        known.add(script.sha if what == script.text else script.plain.sha)
        self.texts[script.name] += 1
        return key

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_crowd_brings_each_text_once(count: int, flags: bool):
    """To one server; where they belong to several, those that the text did not reach bring it."""
    nodes = Nodes(count, flags=flags)
    client = Client("redis://host", connect_timeout=20, command_timeout=20, link=nodes)
    keys = [str(n) for n in range(60)]
    calls = [client.run(load(CALLED[n // 30]), [key], []) for n, key in enumerate(keys)]
    assert await asyncio.gather(*calls) == keys
    if count == 1:
        assert nodes.texts == dict.fromkeys(CALLED, 1)
    later = dict(nodes.texts)
    assert await client.run(load(CALLED[0]), ["0"], []) == "0"
    assert nodes.texts == later
    await client.aclose()
