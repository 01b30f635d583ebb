"""The limiter for threads over the channel: one connection for all of them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import pytest
from tests_support.patient import ServiceThread
from tests_support.relay import Relay
from tests_support.waiting import wait_until

from client_sdk import (
    LimiterOptions,
    Progress,
    ServiceUnavailable,
    SluicegateError,
    SyncLease,
    SyncLimiter,
    WaitTimeout,
)

Start = Callable[..., ServiceThread]
ONLY = LimiterOptions(channel="only", backoff=0.01, max_backoff=0.05, timeout=10)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """A hundred threads."""
    with ThreadPoolExecutor(100) as pool:
        yield pool


def wait_for_slot(
    limiter: SyncLimiter, on_wait: Callable[[Progress], None] | None = None
) -> SyncLease:
    """Wait for the one slot of p/one."""
    return limiter.acquire("p/one", tokens=1, max_wait=60, on_wait=on_wait)


def serve_in_turn(lease: SyncLease, callers: list[Future[SyncLease]]) -> None:
    """Settle for one caller after the other."""
    waiting = set(callers)
    while waiting:
        lease.settle()
        done, waiting = wait(waiting, 20, FIRST_COMPLETED)
        assert len(done) == 1
        lease = done.pop().result()


def test_a_hundred_waiting_threads_share_one_connection(
    service: ServiceThread, threads: ThreadPoolExecutor
):
    """Each is granted when its turn comes."""
    with Relay(service.port) as relay:
        with SyncLimiter(relay.url, options=ONLY) as limiter:
            lease = limiter.acquire("p/one", tokens=1)
            callers = [threads.submit(wait_for_slot, limiter) for _ in range(100)]
            wait_until(lambda: service.engine.waiting == 100, "they do not wait")
            serve_in_turn(lease, callers)
        assert (relay.handshakes, relay.requests) == (1, 0)


def test_progress_comes_in_the_thread_that_waits(
    service: ServiceThread, threads: ThreadPoolExecutor
):
    """It may use the limiter meanwhile; what it raises is raised there, and ends the wait."""
    with SyncLimiter(service.url, options=ONLY) as limiter:
        seen: list[tuple[int, int]] = []

        def note(progress: Progress) -> None:
            assert limiter.check("p/m", tokens=1).would_grant
            seen.append((threading.get_ident(), progress.position))

        def wait_here() -> int:
            wait_for_slot(limiter, note).settle()
            return threading.get_ident()

        def fail(_: Progress) -> None:
            raise LookupError("of the caller's own")

        lease = limiter.acquire("p/one", tokens=1)
        waiting = threads.submit(wait_here)
        wait_until(lambda: seen, "nobody is told")
        with pytest.raises(LookupError):
            wait_for_slot(limiter, fail)
        wait_until(lambda: service.engine.called_off == 1, "it is not called off")
        lease.settle()
        thread = waiting.result(20)
    assert seen[0] == (thread, 0)
    assert {ident for ident, _ in seen} == {thread}


def test_threads_that_wait_find_their_way_to_the_next_replica(
    service: ServiceThread, start: Start, threads: ThreadPoolExecutor
):
    """The network breaks, another replica answers."""
    other = start()
    with Relay(service.port) as relay, SyncLimiter(relay.url, options=ONLY) as limiter:
        lease = limiter.acquire("p/one", tokens=1)
        callers = [threads.submit(wait_for_slot, limiter) for _ in range(20)]
        wait_until(lambda: service.engine.waiting == 20, "they do not wait")
        before = {name for name in service.engine.asked if name}
        relay.target = other.port
        relay.cut()
        wait_until(lambda: other.engine.waiting == 20, "they do not come back")
        assert set(other.engine.asked) < before
        serve_in_turn(lease, callers)


def test_threads_that_wait_outlive_a_restart(
    service: ServiceThread, start: Start, threads: ThreadPoolExecutor
):
    """The service is gone for a while, and starts again on the same port."""
    with SyncLimiter(service.url, options=ONLY) as limiter:
        lease = limiter.acquire("p/one", tokens=1)
        callers = [threads.submit(wait_for_slot, limiter) for _ in range(5)]
        wait_until(lambda: service.engine.waiting == 5, "they do not wait")
        service.stop()
        with pytest.raises(ServiceUnavailable):
            limiter.check("p/m", tokens=1)
        again = start(service.port)
        wait_until(lambda: again.engine.waiting == 5, "they do not come back")
        serve_in_turn(lease, callers)


def test_threads_under_load_charge_what_they_use(
    service: ServiceThread, threads: ThreadPoolExecutor
):
    """Forty threads, each with leases of its own, over one connection."""

    def work(limiter: SyncLimiter) -> None:
        for _ in range(5):
            with limiter.acquire("p/m", tokens=4) as lease:
                lease.used(output_tokens=1)

    with Relay(service.port) as relay:
        with SyncLimiter(relay.url, options=ONLY) as limiter:
            for caller in [threads.submit(work, limiter) for _ in range(40)]:
                caller.result(30)
            levels = limiter.check("p/m", tokens=1).limits
        assert (relay.handshakes, relay.requests) == (1, 0)
    assert [level.remaining for level in levels] == [800, 50]


@pytest.mark.parametrize("status", ["404 Not Found", "426 Upgrade Required", ""])
def test_where_no_websocket_passes_http_does(service: ServiceThread, status: str):
    """The way is tried once, not for every call."""
    hasty = LimiterOptions(timeout=10 if status else 0.5)
    with Relay(service.port, refuse=status) as relay:
        with SyncLimiter(relay.url, options=hasty) as limiter:
            with limiter.acquire("p/one", tokens=1, max_wait=5):
                assert not limiter.check("p/one", tokens=1).would_grant
            assert limiter.check("p/one", tokens=1).would_grant
        assert relay.handshakes == 1
        assert relay.requests >= 1


def test_a_limiter_for_the_channel_only_says_why_there_is_none(service: ServiceThread):
    """It does not go another way."""
    with Relay(service.port, refuse="404 Not Found") as relay:
        with (
            SyncLimiter(relay.url, options=ONLY) as limiter,
            pytest.raises(ServiceUnavailable, match="404"),
        ):
            limiter.check("p/m", tokens=1)
        assert relay.requests == 0


def test_a_connection_on_which_nothing_is_heard_is_replaced(
    service: ServiceThread, threads: ThreadPoolExecutor
):
    """The first answer that is overdue tells."""
    hasty = LimiterOptions(timeout=0.5, attempts=20, backoff=0.01, max_backoff=0.05)
    with Relay(service.port) as relay, SyncLimiter(relay.url, options=hasty) as limiter:
        limiter.check("p/m", tokens=1)
        relay.stall()
        before = relay.handshakes
        caller = threads.submit(limiter.check, "p/m", tokens=1)
        wait_until(lambda: relay.handshakes > before, "the connection is kept")
        relay.flow()
        assert caller.result(20).would_grant


def test_max_wait_ends_even_when_nobody_says_so(service: ServiceThread):
    """The network swallows everything: the caller is told when its patience is over."""
    hasty = LimiterOptions(channel="only", timeout=0.5, attempts=1)
    with Relay(service.port) as relay, SyncLimiter(relay.url, options=hasty) as limiter:
        limiter.acquire("p/one", tokens=1)
        relay.stall()
        with pytest.raises(WaitTimeout):
            limiter.acquire("p/one", tokens=1, max_wait=0.1)
        relay.flow()


def test_closing_calls_off_what_waits(service: ServiceThread, threads: ThreadPoolExecutor):
    """Its callers are told, and the service forgets them."""
    limiter = SyncLimiter(service.url, options=ONLY)
    limiter.acquire("p/one", tokens=1)
    callers = [threads.submit(wait_for_slot, limiter) for _ in range(10)]
    wait_until(lambda: service.engine.waiting == 10, "they do not wait")
    limiter.close()
    assert service.engine.called_off == 10
    for caller in callers:
        with pytest.raises(SluicegateError, match="closed while"):
            caller.result(20)
    with pytest.raises(RuntimeError, match="closed"):
        limiter.check("p/m", tokens=1)


def test_no_thread_stays_behind(service: ServiceThread):
    """Closing ends what the limiter started."""
    with SyncLimiter(service.url, options=ONLY) as limiter:
        limiter.check("p/m", tokens=1)  # what the service begins at its first call is not ours
    before = set(threading.enumerate())
    with SyncLimiter(service.url, options=ONLY) as limiter:
        limiter.check("p/m", tokens=1)
        ours = set(threading.enumerate()) - before
        assert ours
    wait_until(lambda: not ours & set(threading.enumerate()), "a thread is left")
