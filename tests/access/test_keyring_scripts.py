"""The scripts of the keyring, on every kind of store."""

from collections.abc import AsyncIterator

import pytest
import redis
from tests_support.servers import Server

from limiter_service.engine import credentials, ids
from limiter_service.store import access_commands
from limiter_service.store.access_commands import AccessCommands, KeyRecord
from limiter_service.store.client import Client

MONTH = 30 * 86_400 * 1e6


@pytest.fixture
async def commands(db: redis.Redis, server: Server) -> AsyncIterator[AccessCommands]:
    """The scripts, over an empty store."""
    client = Client(server.url, connect_timeout=20, command_timeout=20)
    yield AccessCommands(client, "sg:")
    await client.aclose()


def record(key_id: str, expires: float | None = None) -> KeyRecord:
    """A key."""
    proof = credentials.prove("s" * 43)
    return KeyRecord(
        id=key_id,
        name="n",
        roles=["read"],
        salt=proof.salt,
        digest=proof.digest,
        created=1.0,
        created_by="a test",
        expires=expires,
    )


async def put(commands: AccessCommands, key: KeyRecord) -> bool:
    """Put a key on the ring."""
    return await commands.put(key, "me", "why", ids.new_nonce())


async def test_the_ring_is_read_as_it_was_written_and_once(commands: AccessCommands):
    """Whoever knows the version in force is sent nothing."""
    now, empty = await commands.keyring(None, ids.new_nonce())
    assert now > 1.7e15
    assert empty is not None
    assert (empty.version, empty.records) == (b"", {})
    assert (await commands.keyring(b"", ids.new_nonce()))[1] is None

    first, second = record("aa"), record("bb", expires=2e15)
    assert await put(commands, first)
    assert await put(commands, second)
    _, ring = await commands.keyring(empty.version, ids.new_nonce())
    assert ring is not None
    assert ring.records == {"aa": first, "bb": second}
    assert (await commands.keyring(ring.version, ids.new_nonce()))[1] is None

    assert await commands.revoke("aa", "n", "me", "left", ids.new_nonce())
    _, later = await commands.keyring(ring.version, ids.new_nonce())
    assert later is not None
    assert later.version != ring.version
    assert set(later.revoked) == {"aa"}
    assert set(later.records) == {"aa", "bb"}


async def test_an_order_whose_answer_was_lost_changes_nothing_more(
    commands: AccessCommands, db: redis.Redis
):
    """It is answered as before, and told in the events once."""
    for _ in range(2):
        assert await put(commands, record("aa"))
    for _ in range(2):
        assert await commands.revoke("aa", "n", "me", "left", ids.new_nonce())
    assert not await commands.revoke("cc", "n", "me", "left", ids.new_nonce())
    told = [fields for _, fields in db.xrange("sg:{*}:e")]
    assert [event[b"type"] for event in told] == [b"key_created", b"key_revoked"]
    assert [event[b"key"] for event in told] == [b"n (aa)"] * 2
    assert [event[b"reason"] for event in told] == [b"why", b"left"]
    assert {event[b"actor"] for event in told} == {b"me"}


async def test_a_full_ring_forgets_what_ended_long_ago(
    commands: AccessCommands, monkeypatch: pytest.MonkeyPatch, db: redis.Redis
):
    """Keys that are valid are never forgotten for new ones."""
    now, _ = await commands.keyring(None, ids.new_nonce())
    await put(commands, record("old", expires=now - MONTH - 1e6))
    await put(commands, record("fresh", expires=now - MONTH + 60e6))
    await put(commands, record("kept"))
    await put(commands, record("left"))
    await commands.revoke("left", "n", "me", "", ids.new_nonce())
    fields = db.hlen("sg:{*}:keyring")
    monkeypatch.setattr(access_commands, "MOST_FIELDS", fields)
    assert await put(commands, record("new"))
    _, ring = await commands.keyring(None, ids.new_nonce())
    assert ring is not None
    assert set(ring.records) == {"fresh", "kept", "left", "new"}
    assert not await put(commands, record("more"))
    assert db.hlen("sg:{*}:keyring") == fields


async def test_a_record_that_cannot_be_read_opens_nothing(
    commands: AccessCommands, db: redis.Redis
):
    """And it keeps nobody else out."""
    await put(commands, record("good"))
    db.hset("sg:{*}:keyring", "kbad", b"\xff" * 20)
    _, ring = await commands.keyring(None, ids.new_nonce())
    assert ring is not None
    assert set(ring.records) == {"good"}
