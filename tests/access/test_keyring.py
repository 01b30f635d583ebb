"""What a replica knows of keys without asking anybody: as much as it finds when it asks."""

import asyncio

import pytest

from limiter_service.engine import credentials
from limiter_service.engine.callers import Caller
from limiter_service.engine.credentials import Credential
from limiter_service.engine.keyring import Keyring
from limiter_service.engine.refusals import Refusal
from limiter_service.store.access_commands import KeyRecord, Ring
from limiter_service.store.errors import StoreUnavailable
from limiter_wire import ErrorCode

HOUR = 3_600_000_000
GIVEN = credentials.draw()


class Store:
    """Commands of a store that has one ring, at a time that is told."""

    def __init__(self, *records: KeyRecord) -> None:
        self.now, self.asked, self.away = 0.0, 0, False
        self.ring = Ring(version=b"1", records={each.id: each for each in records})

    async def keyring(self, _version: bytes | None, _tag: int) -> tuple[float, Ring]:
        """The time, and the ring. Raises StoreUnavailable while it is away."""
        self.asked += 1
        if self.away:
            raise StoreUnavailable("it refuses connections")
        return self.now, self.ring


def record(shown: Credential, expires: float | None = None) -> KeyRecord:
    """A key as it is stored."""
    proof = credentials.prove(shown.secret)
    return KeyRecord(
        id=shown.id,
        name="worker",
        roles=["acquire"],
        salt=proof.salt,
        digest=proof.digest,
        created=0.0,
        created_by="somebody",
        expires=expires,
    )


def found(keyring: Keyring, shown: Credential) -> Caller | None:
    """Whom a keyring finds that may refuse, and count it."""
    try:
        return keyring.find(shown)
    except Refusal:
        return None


async def ring_of(store: Store, grace: float = 60.0) -> Keyring:
    """A keyring that has looked."""
    keyring = Keyring(store, lambda: [GIVEN], grace=grace)  # type: ignore[arg-type]  # as far as it is used
    await keyring.look()
    return keyring


async def test_a_valid_key_is_known_and_no_other():
    """Nor is anybody counted for it."""
    good, old = credentials.draw(), credentials.draw()
    store = Store(record(good), record(old, expires=HOUR))
    keyring = await ring_of(store)
    wrong = Credential(good.id, old.secret)
    for shown, valid in ((good, True), (old, True), (GIVEN, True), (wrong, False)):
        assert (keyring.knows(shown) is not None) == valid
        assert keyring.knows(shown) is found(keyring, shown)
    store.now = 2.0 * HOUR
    await keyring.look()
    counts = dict(keyring.turnstile.counts)
    assert keyring.knows(old) is None
    assert keyring.knows(credentials.draw()) is None
    assert keyring.turnstile.counts == counts
    assert found(keyring, old) is None


@pytest.mark.parametrize("grace", [-1.0, 60.0])
async def test_a_key_of_a_store_that_is_silent_is_known_for_a_while(grace: float):
    """Those that were given to this replica for ever."""
    good = credentials.draw()
    keyring = await ring_of(Store(record(good)), grace)
    await asyncio.sleep(0)
    assert (keyring.knows(good) is not None) == (grace > 0)
    assert keyring.knows(good) is found(keyring, good)
    assert keyring.knows(GIVEN) is not None


async def test_that_there_are_no_keys_is_known_when_somebody_has_looked():
    """Before that nobody knows."""
    keyring = Keyring(Store(), list, grace=60.0)  # type: ignore[arg-type]  # as above
    assert not keyring.has_none
    await keyring.look()
    assert keyring.has_none
    assert not (await ring_of(Store())).has_none
    keyring = Keyring(Store(record(credentials.draw())), list, grace=60.0)  # type: ignore[arg-type]  # as above
    await keyring.look()
    assert not keyring.has_none


@pytest.mark.parametrize("away", [True, False])
async def test_callers_who_come_together_share_a_look(away: bool):
    """Also one in vain: nobody of a crowd waits for the looks of all others, one after another."""
    good = credentials.draw()
    store = Store()
    keyring = await ring_of(store)
    store.away = away
    store.ring = Ring(version=b"2", records={good.id: record(good)})
    crowd = [keyring.look_for(good) for _ in range(50)]
    told = await asyncio.gather(*crowd, return_exceptions=True)
    assert store.asked == 2
    codes = [each.problem.code if isinstance(each, Refusal) else type(each) for each in told]
    assert codes == 50 * [ErrorCode.STORE_UNAVAILABLE if away else Caller]
