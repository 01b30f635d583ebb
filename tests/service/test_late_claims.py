"""What a replica has granted without the store is charged later, by whoever knows the time."""

import time

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from tests_support.service import PATIENT
from tests_support.waiting import until

from limiter_service.config import parse
from limiter_service.engine import ids
from limiter_service.engine.admission import Engine
from limiter_service.engine.ids import LeaseRef, Owed
from limiter_service.engine.journal import late
from limiter_service.engine.policy import Policies
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.hints import Hints
from limiter_service.store.messages import Claim
from limiter_wire import Settle, Usage

HOUR = 3_600_000_000
CLAIM = Claim(nonce=1, fingerprint=2, ttl=2_000_000, remember=60_000_000, marks=0, amounts=[1.0])


@given(st.integers(-HOUR, HOUR))
def test_a_lease_that_is_charged_late_never_lives_longer_than_it_was_granted_for(gap: int) -> None:
    """Also where the clock that it was granted by is ahead of the one that it is charged by."""
    left = late(CLAIM, 1e15, 1e15 + gap).ttl
    assert 0 < left <= CLAIM.ttl
    if 0 <= gap < CLAIM.ttl:
        assert left == pytest.approx(CLAIM.ttl - gap)


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
async def test_who_charges_for_another_goes_by_the_clock_of_the_store(
    db: redis.Redis, ahead: float
) -> None:
    """However wrong that of its host is: the lease was granted by the store's."""
    url = f"unix://{db.connection_pool.connection_kwargs['path']}"
    policies = Policies(parse("pools: {p: {models: {m: {tpm: 1000}}}}", ".yaml"), "sg:")
    client = Client(url, connect_timeout=PATIENT, command_timeout=PATIENT)
    engine = Engine(
        Commands(client),
        policies,
        lambda: time.time_ns() / 1000 + ahead * 1e6,
        "sg:",
        hints=Hints(client),
        observe=lambda _: None,
    )
    engine.outages.start()

    async def seen() -> bool:
        return engine.outages.pool("p").presence.known

    try:
        await until(seen, "the store is not seen")
        seconds, micro = db.time()
        (limit,) = policies.policy("p/m", "default").limits
        charges = {limit.id: 100.0}
        owed = Owed(
            taken=seconds * 1_000_000 + micro, ttl=600_000_000, fingerprint=7, charges=charges
        )
        ref = LeaseRef("p", "m", "default", "alone", ids.new_nonce(), None, owed)
        report = Settle(lease=ids.encode(ref), usage=Usage(input_tokens=30))
        assert (await engine.settle(report)).refunded == {"tokens": 70}
        assert 0 < db.pttl(next(db.scan_iter("sg:{p}:l:*"))) <= 3_700_000
    finally:
        await engine.outages.aclose()
        await engine.passes.aclose()
        await client.aclose()
