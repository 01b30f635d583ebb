"""What a replica has granted without the store is charged later, by whoever knows what time it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_service.engine.journal import late
from limiter_service.store.commands import Claim

HOUR = 3_600_000_000
CLAIM = Claim(nonce=1, fingerprint=2, ttl=2_000_000, remember=60_000_000, marks=0, amounts=[1.0])


@given(st.integers(-HOUR, HOUR))
def test_a_lease_that_is_charged_late_never_lives_longer_than_it_was_granted_for(gap: int) -> None:
    """Also where the clock that it was granted by is ahead of the one that it is charged by."""
    left = late(CLAIM, 1e15, 1e15 + gap).ttl
    assert 0 < left <= CLAIM.ttl
    if 0 <= gap < CLAIM.ttl:
        assert left == pytest.approx(CLAIM.ttl - gap)
