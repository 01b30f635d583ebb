"""How long a machine takes for a story is no part of it."""

import pytest
import redis
from lives import MORE
from plots import PLOTS, plot_of
from story import story
from tests_support.scripts import CLOCK
from world import Store

from limiter_service.simulation.virtual_time import run

_STALL, _EVERY = 10_000, 16
_STALLED = f"""
for _, key in ipairs(redis.call("KEYS", "*")) do
  local left = redis.call("PTTL", key)
  if left >= 0 and key ~= "{CLOCK}" then
    redis.call("PEXPIRE", key, left - {_STALL})
  end
end
"""
"""The server's clock goes on by ten seconds, as far as keys know; that of the world stands still."""


@pytest.mark.parametrize("seed", range(len(PLOTS)), ids=plot_of)
def test_a_machine_that_stalls_tells_the_same_story(
    valkey_db: redis.Redis, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Nothing that is still needed is gone after it."""
    told = run(story(valkey_db, seed, calls=300))
    flush, flushes = Store._flush, 0

    def stall(self: Store) -> None:
        nonlocal flushes
        flushes += 1
        if flushes % _EVERY == 0:
            valkey_db.eval(_STALLED, 0)
        flush(self)

    monkeypatch.setattr(Store, "_flush", stall)
    again = run(story(valkey_db, seed, calls=300))
    assert _EVERY < flushes < _EVERY * MORE / _STALL, "it stalls, and not for a day"
    assert again.history == told.history


@pytest.mark.parametrize("seed", range(len(PLOTS)), ids=plot_of)
def test_every_key_outlives_its_story(valkey_db: redis.Redis, seed: int) -> None:
    """Also those whose lives are given in a way that nobody has thought of here."""
    run(story(valkey_db, seed, calls=300))
    lives = {key: valkey_db.pttl(key) for key in valkey_db.keys("*") if key != CLOCK.encode()}
    assert lives
    assert {key for key, life in lives.items() if life < MORE / 2} == set()
