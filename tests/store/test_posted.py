"""Calls that nobody awaits, and what is no failure of the store."""

from collections.abc import Sequence
from typing import Any

import pytest
from redis import exceptions
from tests_support.waiting import until

from limiter_service.store.client import Client, Posted
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import Script

ECHO = Script(name="echo", text="return ARGV[1]", sha="0" * 40)


class Way:
    """A way to a store on which every exchange ends with *error*."""

    sharded = False

    def __init__(self, error: Exception) -> None:
        self._error, self.sent = error, 0

    def place(self, _key: str) -> str:
        """There is one."""
        return ""

    async def send(self, _place: str, _commands: Sequence[Any]) -> list[Any]:
        """No reply."""
        self.sent += 1
        raise self._error

    async def doubt(self) -> None:
        """Nobody else can be asked."""


class Kept(Posted):
    """Keeps what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    def came(self, reply: Any) -> None:
        """Nothing comes here."""
        raise AssertionError(reply)

    def failed(self, error: Exception) -> None:
        """It is kept."""
        self.error = error


async def posted(way: Way) -> tuple[Client, Kept]:
    """A call that has failed."""
    client = Client("redis://nowhere", connect_timeout=1, command_timeout=5, link=way)  # type: ignore[arg-type]  # as far as it is used
    kept = Kept()
    kept.aim(ECHO, ("k",), (b"x",))
    assert client.post(kept)

    async def has_failed() -> bool:
        return kept.error is not None

    await until(has_failed, "it does not fail")
    return client, kept


async def test_a_mistake_of_ours_is_no_lost_store():
    """It is raised as it is, at once, and the store is asked on as ever."""
    way = Way(KeyError("ours"))
    client, kept = await posted(way)
    assert kept.error is not None
    with pytest.raises(KeyError, match="ours"):
        await client.insist(kept, kept.error)
    assert way.sent == 1
    assert not kept.lane.fuse.reason


async def test_a_failure_of_the_store_is_tried_again():
    """The first attempt counts: three in all."""
    way = Way(exceptions.ConnectionError("gone"))
    client, kept = await posted(way)
    assert kept.error is not None
    with pytest.raises(StoreUnavailable, match="gone"):
        await client.insist(kept, kept.error)
    assert way.sent == 3
