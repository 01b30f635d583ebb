"""What takes minutes, hours or a day: on a real store, in a time that the test moves."""

import struct

import pytest
import redis
from tests_support.leavings import left_in
from tests_support.races import PATIENT, STORES
from tests_support.scripts import CLOCK, POOL, START, scripts
from tests_support.servers import Server
from tests_support.virtual_fleet import virtual_fleet

from limiter_service.config import parse
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.store.keys import Keys
from limiter_wire import Granted, Outcome

pytestmark = [PATIENT, pytest.mark.parametrize("server", STORES, indirect=True)]

CONFIG = f"""
pools:
  {POOL}:
    models: {{m: {{}}}}
    breaker: {{min_calls: 10, jitter: 0, ramp: null, retry_ratio: null}}
"""
US = 1_000_000
DAY = 86_400
EVERY = 4
"""Seconds between two successes: now and then two fall into one bucket of five."""


async def test_under_flapping_the_open_time_grows_and_healthy_time_takes_it_back(
    db: redis.Redis, server: Server
):
    """Ten seconds up, ten down, for five minutes, with eight workers that call twice a second."""
    async with virtual_fleet(db, server.url, CONFIG) as fleet:
        wasted = sent = 0
        for step in range(600):
            up = step % 40 < 20
            for worker in range(8):
                passed = await fleet.call(f"w{worker}", well=up)
                sent += passed is not None
                wasted += passed is not None and not up
            fleet.move(0.5)
        lasts = [float(each["lasts"]) / US for each in await fleet.events() if "lasts" in each]
        assert lasts == sorted(lasts)
        assert lasts[:3] == [5, 10, 20]
        assert wasted <= 12 * len(lasts)  # of the 1,200 that were wanted in bad times
        assert sent > wasted
        for _ in range(100):  # the provider is well again, for longer than the openings were
            await fleet.call("w1", well=True)
            fleet.move(5)
        for worker in range(200):
            await fleet.call(f"w{worker}", well=False)
        last = (await fleet.events())[-1]
        assert (last["to"], float(last["lasts"]) / US) == ("open", 5)


async def test_a_clock_that_steps_back_prolongs_nothing_and_admits_no_more(
    db: redis.Redis, server: Server
):
    """A failover to a host that is an hour behind, while the circuit is open and half-open."""
    async with virtual_fleet(db, server.url, CONFIG) as fleet:
        for worker in range(10):
            await fleet.call(f"w{worker}", well=False)
        fleet.move(4)
        fleet.move(-3600)
        refused = await fleet.crowd(60)
        assert all(isinstance(each, Refusal) for each in refused)
        waits = {each.problem.retry_after for each in refused if isinstance(each, Refusal)}
        assert waits <= {5.0}  # as when it was last written: what is not known is not credited
        fleet.move(5)
        probes = [each for each in await fleet.crowd(60) if isinstance(each, Granted)]
        assert [each.probe for each in probes] == [True]
        fleet.move(-3600)
        assert all(isinstance(each, Refusal) for each in await fleet.crowd(60))
        fleet.move(60)  # a lease of a probe from then on
        again = [each for each in await fleet.crowd(60) if isinstance(each, Granted)]
        assert [each.probe for each in again] == [True]
        await fleet.end(probes[0], Outcome.SERVER_ERROR)  # its lease has ended
        await fleet.end(again[0], Outcome.SUCCESS)
        closing = [each for each in await fleet.crowd(60) if isinstance(each, Granted)]
        assert len(closing) == 1
        await fleet.end(closing[0], Outcome.SUCCESS)
        assert all(isinstance(each, Granted) for each in await fleet.crowd(60))
        told = [(each["type"], each.get("reason")) for each in await fleet.events()]
        assert told == [
            ("breaker", "consecutive"),
            ("breaker", "expired"),
            ("probe_lost", None),
            ("breaker", "recovered"),
        ]


def test_a_day_of_successes_leaves_the_state_as_large_as_a_minute(db: redis.Redis, server: Server):
    """Some in every bucket of the window, through the scripts as the service calls them."""
    policy = Policies(parse(CONFIG.replace(", retry_ratio: null", ""), ".yaml"), "sg:").policy(
        f"{POOL}/m", "default"
    )
    loaded, keys = scripts(), Keys(POOL)
    chain = policy.chain(START)
    shas = [db.script_load(loaded[name].text) for name in ("acquire", "settle")]

    def calls(first: int, count: int) -> None:
        pipeline = db.pipeline(transaction=False)
        for number in range(first, first + count):
            names = [*chain.keys, keys.lease("default", f"r{number}"), keys.queue()]
            pipeline.set(CLOCK, START + number * EVERY * US, ex=3600)
            nonce = number + 1
            asked = [nonce, 1, 60 * US, US, 0, 0, 1, number % 7, 0]
            report = [nonce, nonce, 0, 1, 0, 0, 0]
            for sha, values in zip(shas, (asked, report), strict=True):
                request = struct.pack(f"<{len(values)}d", *values)
                arguments = [*chain.policies, chain.breaker, request]
                pipeline.evalsha(sha, len(names), *names, *arguments)
            pipeline.unlink(names[-2])  # a second later the store forgets it by itself
        answers = pipeline.execute()
        letters = {answer[8:9] for answer in answers if isinstance(answer, bytes)}
        assert letters == {b"G"}

    def sizes() -> dict[bytes, int]:
        found = (key for key in left_in(db) if key.startswith(b"sg:{p}") and key != CLOCK.encode())
        return {key: db.strlen(key) for key in found}

    calls(0, 24)
    minute = sizes()
    assert len(minute) == 3, minute  # the circuit, the pin, and the scope of its limits
    for first in range(24, DAY // EVERY, 500):
        calls(first, min(500, DAY // EVERY - first))
    assert sizes() == minute
    circuit = db.get(keys.circuit("m"))
    assert circuit is not None
    window = struct.unpack(f"<{len(circuit) // 8}d", circuit)[7:79:6]
    assert set(window) == {1, 2}
