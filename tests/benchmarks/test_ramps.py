"""A provider that refuses what grows too fast, and a ramp that keeps below it.

Virtual time: the real engine and scripts against the simulator's core.
"""

import pytest
import redis
from ramps import ROWS, replayed

SECONDS = 100.0


@pytest.mark.timeout(300)
def test_a_ramp_prevents_refusals_of_growth(valkey_db: redis.Redis) -> None:
    """Callers who want all of a limit out of nothing: a third of what they send is refused
    under the limit alone, hardly anything with a ramp, and everybody is served.
    """
    rows = {row.name: row for row in ROWS}
    alone = replayed(valkey_db, rows["limit, breaker off"], SECONDS)
    ramped = replayed(valkey_db, rows["limit, ramp with a margin"], SECONDS)
    assert float(alone["429s per 1,000"]) > 200
    assert float(ramped["429s per 1,000"]) < 20
    assert ramped["not served"] == 0
