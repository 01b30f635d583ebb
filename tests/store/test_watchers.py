"""Sentinels are believed by their latest failover: one that is cut off has not heard of it."""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as NotConnected

from limiter_service.store.connecting import _Asked

OLD, NEW = 6001, 6002


class Sentinel:
    """One of three. It says who is the primary since which failover, or nothing."""

    def __init__(self, port: int = OLD, epoch: int = 0) -> None:
        self.port, self.epoch, self.silent = port, epoch, False

    async def sentinel_masters(self) -> dict[str, dict[str, Any]]:
        """As the client library has it."""
        if self.silent:
            raise NotConnected("it is gone")
        state = {"ip": "127.0.0.1", "port": self.port, "config-epoch": self.epoch}
        flags = {"is_master": True, "is_sdown": False, "is_odown": False, "num-other-sentinels": 2}
        return {"main": state | flags}


@pytest.fixture
def three() -> list[Sentinel]:
    """All of them name the first primary."""
    return [Sentinel(), Sentinel(), Sentinel()]


@pytest.fixture
def asked(three: list[Sentinel]) -> Any:
    """Who asks them."""
    made: Any = _Asked
    asking = made([])
    asking.service, asking.sentinels = "main", list(three)
    return asking


async def test_the_latest_failover_counts(three: list[Sentinel], asked: Any) -> None:
    """Whoever has not heard of it is not asked first any more; it is told once."""
    assert await asked.discover_master("main") == ("127.0.0.1", OLD)
    three[2].port, three[2].epoch = NEW, 1
    assert await asked.renamed()
    assert await asked.discover_master("main") == ("127.0.0.1", NEW)
    assert not await asked.renamed()


async def test_who_says_nothing_renames_nothing(three: list[Sentinel], asked: Any) -> None:
    """One of them, all of them, or of another service."""
    assert await asked.discover_master("main") == ("127.0.0.1", OLD)
    three[0].silent = True
    assert not await asked.renamed()
    three[1].silent = three[2].silent = True
    assert not await asked.renamed()
    three[0].silent = False
    asked.service = "other"
    assert not await asked.renamed()
    asked.service = "main"
    three[0].port, three[0].epoch = NEW, 1
    assert await asked.renamed()


async def test_nothing_is_renamed_before_the_first_name(asked: Any) -> None:
    """There is no connection yet that could lead elsewhere."""
    assert not await asked.renamed()
    assert not await asked.renamed()
