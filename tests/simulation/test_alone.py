"""What replicas that decide alone may not grant again, and what they say when they are asked."""

import asyncio

import pytest
import redis
from few import YEAR, Few, M, tell

from limiter_service.engine import outages
from limiter_service.engine.outages import Phase
from limiter_service.engine.presence import Presence
from limiter_service.engine.refusals import Refusal
from limiter_service.store.messages import Seen
from limiter_wire import Acquire, Checked, ErrorCode, Granted, Outcome, Renew, Settle, Usage


def test_what_a_renewal_has_charged_is_not_granted_again_by_its_own_replica(
    valkey_db: redis.Redis,
) -> None:
    """The store is lost before the next look."""

    async def plot(few: Few) -> None:
        granted = await few.take(0, 100)
        assert isinstance(granted, Granted)
        await few.looked()
        for used in (300, 500, 500):
            usage = Usage(input_tokens=used)
            await few.engines[0].renew(Renew(lease=granted.lease, usage=usage))
        await few.lost()
        assert await few.drain(0, 10) == (1000 - 100) / 2 - 400
        assert await few.drain(1, 10) == (1000 - 100) / 2

    tell(valkey_db, YEAR, "degrade", plot)


async def _checked(few: Few, tokens: int = 1) -> Checked:
    """What the first replica would answer, which is what it answers then."""
    before = few.pool(0).granted
    checked = await few.engines[0].check(Acquire(resource=M, tokens=tokens))
    assert checked.degraded
    assert few.pool(0).granted == before
    answer = await few.take(0, tokens)
    assert checked.would_grant == isinstance(answer, Granted)
    if isinstance(answer, Refusal):
        assert checked.limit == answer.problem.limit
        assert checked.never_fits == (answer.problem.code is ErrorCode.NEVER_FITS)
        assert checked.retry_after == (answer.problem.retry_after or 0.0)
    return checked


def test_a_check_says_no_when_others_have_joined(valkey_db: redis.Redis) -> None:
    """Since an acquire is refused then: the share is smaller than it was."""

    async def plot(few: Few) -> None:
        await few.lost()
        assert (await _checked(few)).would_grant
        presence, now = few.pool(0).presence, asyncio.get_running_loop().time()
        wall = presence.wall + 1e6
        presence.hear(Seen(now=wall, replicas=3, oldest=wall, after=0), now)
        assert not (await _checked(few)).would_grant

    tell(valkey_db, YEAR, "degrade", plot)


def test_a_check_says_what_a_share_has_room_for(valkey_db: redis.Redis) -> None:
    """And what never fits, into the share or at all."""

    async def plot(few: Few) -> None:
        await few.lost()
        assert (await _checked(few, 300)).would_grant
        assert (await _checked(few, 300)).limit == "m.t"
        assert not (await _checked(few, 600)).never_fits
        assert (await _checked(few, 1001)).never_fits

    tell(valkey_db, YEAR, "degrade", plot)


@pytest.mark.parametrize("mode", ["degrade", "open"])
def test_a_check_says_what_the_breaker_last_said(valkey_db: redis.Redis, mode: str) -> None:
    """And does not take the place of the one call that tries it."""

    async def plot(few: Few) -> None:
        leases = [await few.take(0) for _ in range(30)]
        for lease in leases:
            assert isinstance(lease, Granted)
            await few.engines[0].settle(Settle(lease=lease.lease, outcome=Outcome.SERVER_ERROR))
        refused = await few.take(0)
        assert isinstance(refused, Refusal)
        await few.lost()
        checked = await _checked(few)
        assert (checked.would_grant, checked.breaker) == (False, "open")
        await asyncio.sleep(checked.retry_after)
        assert (await _checked(few)).would_grant
        assert not (await _checked(few)).would_grant

    tell(valkey_db, YEAR, mode, plot)


def test_a_check_says_that_others_wait(valkey_db: redis.Redis) -> None:
    """Nobody passes them."""

    async def plot(few: Few) -> None:
        await few.lost()
        assert isinstance(await few.take(0, 400), Granted)
        waiting = asyncio.create_task(few.take(0, 200, max_wait=19.0))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        assert not (await _checked(few)).would_grant
        assert isinstance(await waiting, Granted)
        await asyncio.sleep(1.0)
        assert (await _checked(few)).would_grant

    limit = "{limits: [{name: t, meter: tokens, limit: 1000, per: 50s, burst: 1000}]}"
    tell(valkey_db, limit, "degrade", plot)


@pytest.mark.parametrize("mode", ["degrade", "open"])
def test_a_check_of_who_has_never_seen_the_store_says_what_an_acquire_does(
    valkey_db: redis.Redis, mode: str
) -> None:
    """Nothing is granted by a share of what is not known."""

    async def plot(few: Few) -> None:
        await few.lost()
        few.pool(0).presence = Presence()
        answer = await few.take(0)
        if mode == "open":
            assert (await _checked(few)).would_grant
            return
        assert isinstance(answer, Refusal)
        with pytest.raises(Refusal, match="has never seen it"):
            await few.engines[0].check(Acquire(resource=M, tokens=1))

    tell(valkey_db, YEAR, mode, plot)


def test_what_has_come_back_before_it_was_taken_makes_up_for_nothing(
    valkey_db: redis.Redis,
) -> None:
    """A bucket that is full loses what would come back."""

    async def plot(few: Few) -> None:
        await few.looked()
        await asyncio.sleep(0.75)
        for at in (0, 1):
            assert isinstance(await few.take(at, 50), Granted)
        then = few.store.wall_us()
        await few.lost()
        left = sum([await few.drain(at, 1) for at in (0, 1)])
        assert left <= 100 * (few.store.wall_us() - then) / 1e6

    tell(valkey_db, "{limits: [{name: t, meter: tokens, limit: 100, per: 1s}]}", "degrade", plot)


def test_a_grant_that_is_heard_of_the_second_time_counts(valkey_db: redis.Redis) -> None:
    """The first answer has come to nobody."""

    async def plot(few: Few) -> None:
        await few.looked()
        few.weather.slow = 0.2
        before = len(few.store.journal)
        first = asyncio.create_task(few.take(0, 300, request_id="r"))
        await few.until(lambda: len(few.store.journal) > before)
        first.cancel()
        few.weather.slow = 0.002
        assert isinstance(await few.take(0, 300, request_id="r"), Granted)
        await few.lost()
        assert await few.drain(0, 10) == 200

    tell(valkey_db, YEAR, "degrade", plot)


def test_what_a_process_has_granted_to_itself_is_not_granted_again(
    valkey_db: redis.Redis,
) -> None:
    """It was charged here, and the store is lost before the next look."""

    async def plot(few: Few) -> None:
        await few.looked()
        assert isinstance(await few.take(0, 300, request_id="late", since=1.0), Granted)
        await few.lost()
        assert await few.drain(0, 10) == 200

    tell(valkey_db, YEAR, "degrade", plot)


def test_a_ramp_is_shared_too(valkey_db: redis.Redis) -> None:
    """Though nothing may grow meanwhile."""

    async def plot(few: Few) -> None:
        await few.looked()
        await few.lost()
        assert await few.drain(0, 10) == 50
        await asyncio.sleep(25.0)
        assert await few.drain(0, 10) == 50

    ramp = "ramp: {start: 100, factor: 2, period: 20s}"
    limit = f"{{limits: [{{name: t, meter: tokens, limit: 1000, per: 366d, {ramp}}}]}}"
    tell(valkey_db, limit, "degrade", plot)


def test_a_chain_of_which_one_limit_is_too_many_is_not_granted(
    valkey_db: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it could not be charged afterwards, and the replica would not come back."""
    monkeypatch.setattr(outages, "MOST_SHARES", 1)

    async def plot(few: Few) -> None:
        await few.lost()
        assert isinstance(await few.take(0), Refusal)
        few.store.up = True
        await few.until(lambda: few.phase(0) is Phase.STORE)

    limit = "{limits: [{meter: tokens, limit: 9, per: day}, {meter: requests, limit: 9, per: day}]}"
    tell(valkey_db, limit, "degrade", plot)
