"""What a channel remembers of the blocks that were lent over it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests_support.patient import ServiceThread
from tests_support.servers import Server
from websockets.asyncio.client import connect

POOLS = "pools: {w: {models: {'*': {tpm: 1000000, rpm: 100000}}}}"


async def test_blocks_of_made_up_models_are_remembered_up_to_a_number(
    store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The oldest are not recalled: they end when their time is over."""
    monkeypatch.setattr("limiter_service.routes.channel.MOST_RECALLED", 2)
    config = tmp_path / "pools.yaml"
    config.write_text(POOLS)
    with ServiceThread(store.url, config) as service:
        async with connect(service.channel, open_timeout=60) as connection:
            for name, model in enumerate(["a", "b", "c", "b"]):
                ask = {"op": "acquire", "resource": f"w/{model}", "tokens": 1, "block": 2}
                await connection.send(msgspec.msgpack.encode({"id": name, **ask}))
                answer: dict[str, Any] = msgspec.msgpack.decode(await connection.recv())
                assert answer["status"] == 200, answer
            (channel,) = service.channels._open
            assert list(channel._lent) == ["w/c", "w/b"]
