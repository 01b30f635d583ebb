"""The limiter against a real service: acquire, check, settle and renew."""

from collections.abc import Callable

import pytest

from client_sdk import (
    InvalidRequest,
    Lease,
    LeaseExpired,
    Limiter,
    NeverFits,
    Outcome,
    RateLimited,
    RequestConflict,
    ServiceUnavailable,
    SluicegateError,
    UnknownLease,
    UnknownResource,
    Usage,
)
from limiter_wire import Settle

Left = Callable[..., float]


async def test_a_lease_settles_itself_on_the_way_out(limiter: Limiter, left: Left):
    """What `used` was told replaces the reservation when the block ends."""
    async with limiter.acquire("p/m", tokens=100) as lease:
        assert left() == 900
        lease.used(input_tokens=30, output_tokens=20)
    assert left() == 950
    assert left("m.slots") == 50
    assert lease.settled is not None
    assert lease.settled.refunded == {"tokens": 50}


async def test_a_lease_of_a_plain_call_is_settled_by_hand(limiter: Limiter, left: Left):
    """It shows what was granted, and answers a second settle like the first."""
    lease = await limiter.acquire("p/m", tokens=100)
    assert isinstance(lease, Lease)
    assert lease.charged == {"tokens": 100, "requests": 1, "concurrency": 1}
    assert [limit.remaining for limit in lease.limits] == [900, 999, 49]
    assert (lease.resource, lease.expires_in, lease.settled) == ("p/m", 600.0, None)
    assert lease.id == lease.granted.lease
    assert lease.request_id
    lease.used(output_tokens=10)
    first = await lease.settle()
    again = await lease.settle()
    assert (first.already_settled, again.already_settled) == (False, True)
    assert first.refunded == again.refunded == {"tokens": 90}
    assert left() == 990


async def test_a_lease_that_was_settled_inside_is_not_settled_again(limiter: Limiter, left: Left):
    """The end of the block leaves the answer of the explicit settle alone."""
    async with limiter.acquire("p/m", tokens=100) as lease:
        lease.used(output_tokens=10)
        await lease.settle(Outcome.STREAM_INTERRUPTED)
    assert lease.settled is not None
    assert not lease.settled.already_settled
    assert left() == 990


async def test_without_usage_the_reservation_stands(limiter: Limiter, left: Left):
    """Nobody knows better, so the tokens stay spent; the slot returns."""
    async with limiter.acquire("p/m", tokens=100):
        pass
    assert (left(), left("m.slots")) == (900, 50)


async def test_an_exception_settles_and_passes_through(limiter: Limiter, left: Left):
    """An error of the caller's own code keeps the charge, for the provider may have served."""
    with pytest.raises(KeyError, match="mine"):
        async with limiter.acquire("p/m", tokens=100):
            raise KeyError("mine")
    assert (left(), left("m.slots")) == (900, 50)


class ProviderSaysNo(Exception):
    """What an SDK of a provider raises: the status hangs on the exception."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


@pytest.mark.parametrize(
    ("status", "expected"), [(429, 1000), (529, 1000), (500, 1000), (504, 900)]
)
async def test_the_status_of_a_provider_error_decides_the_refund(
    limiter: Limiter, left: Left, status: int, expected: int
):
    """A call that the provider refused costs no tokens; one that it broke off does."""
    with pytest.raises(ProviderSaysNo):
        async with limiter.acquire("p/m", tokens=100):
            raise ProviderSaysNo(status)
    assert left() == expected
    assert left("m.calls") == 999


async def test_a_refusal_is_an_exception_with_everything_in_it(limiter: Limiter, left: Left):
    """Limit, wait, room and levels are attributes, and the text names the resource."""
    await limiter.acquire("p/m", tokens=950)
    with pytest.raises(RateLimited) as caught:
        await limiter.acquire("p/m", tokens=100, request_id="r7")
    error = caught.value
    assert (error.limit, error.would_fit, error.code) == ("m.budget", 50, "rate_limited")
    assert error.retry_after is not None
    assert error.retry_after > 0
    assert (error.resource, error.provider, error.model) == ("p/m", "p", "m")
    assert (error.request_id, error.phase, error.retryable) == ("r7", "acquire", True)
    assert [limit.remaining for limit in error.limits] == [50, 999, 49]
    assert "[resource p/m, request r7]" in str(error)
    assert left() == 50


async def test_what_never_fits_is_not_worth_a_retry(limiter: Limiter):
    """However long the caller would wait, it is said at once."""
    with pytest.raises(NeverFits) as caught:
        await limiter.acquire("p/m", tokens=1001, max_wait=60)
    assert not caught.value.retryable
    assert caught.value.would_fit == 1000


@pytest.mark.parametrize(
    ("resource", "tokens", "kind"),
    [("p/nobody", 1, UnknownResource), ("q/m", 1, UnknownResource), ("p/m", 0, InvalidRequest)],
)
async def test_a_mistake_has_its_own_exception(
    limiter: Limiter, resource: str, tokens: int, kind: type[SluicegateError]
):
    """Each is an error of the tree, and none is worth a retry."""
    with pytest.raises(kind) as caught:
        await limiter.acquire(resource, tokens=tokens)
    assert not caught.value.retryable


async def test_a_request_id_of_another_request_is_a_conflict(limiter: Limiter, left: Left):
    """The first one stands."""
    await limiter.acquire("p/m", tokens=10, request_id="r1")
    with pytest.raises(RequestConflict):
        await limiter.acquire("p/m", tokens=20, request_id="r1")
    assert left() == 990


async def test_the_same_request_id_is_the_same_lease(limiter: Limiter, left: Left):
    """A caller that repeats itself after a crash charges once."""
    first = await limiter.acquire("p/m", tokens=10, request_id="r1")
    again = await limiter.acquire("p/m", tokens=10, request_id="r1")
    assert again.granted == first.granted
    assert left() == 990


async def test_max_wait_waits_until_there_is_room(limiter: Limiter):
    """A refusal that names a time within `max_wait` is no refusal for the caller."""
    for _ in range(4):
        await limiter.acquire("p/quick", tokens=1, max_wait=30)


async def test_a_wait_beyond_max_wait_is_refused_at_once(limiter: Limiter, left: Left):
    """Waiting for what takes longer than allowed would be wasted."""
    await limiter.acquire("p/m", tokens=1000)
    with pytest.raises(RateLimited) as caught:
        await limiter.acquire("p/m", tokens=1000, max_wait=3600)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 3600
    assert left() == 0


async def test_a_check_changes_nothing(limiter: Limiter, left: Left):
    """It says what an acquire would answer."""
    assert (await limiter.check("p/m", tokens=10)).would_grant
    checked = await limiter.check("p/m", input_tokens=900, max_output_tokens=101)
    assert (checked.would_grant, checked.never_fits, checked.limit) == (False, True, "m.budget")
    assert left() == 1000


async def test_a_lease_can_be_renewed(limiter: Limiter, left: Left):
    """Usage beyond the reservation is charged now, and the lease lives on."""
    lease = await limiter.acquire("p/m", tokens=100, ttl=5)
    lease.used(output_tokens=130)
    renewed = await lease.renew(ttl=60)
    assert (renewed.expires_in, renewed.charged["tokens"]) == (60.0, 130)
    assert left() == 870
    await lease.settle()
    with pytest.raises(LeaseExpired):
        await lease.renew()


async def test_a_lease_id_is_settled_from_anywhere(limiter: Limiter, url: str, left: Left):
    """Another process needs the id alone."""
    lease = await limiter.acquire("p/m", tokens=100)
    async with Limiter(url) as other:
        await other.renew(lease.id, usage=Usage(input_tokens=110))
        settled = await other.settle(Settle(lease=lease.id, usage=Usage(input_tokens=40)))
        assert settled.refunded == {"tokens": 70}
        with pytest.raises(UnknownLease):
            await other.settle(Settle(lease="nobody"))
    assert left() == 960


async def test_a_limiter_speaks_for_its_tenant(url: str, left: Left):
    """Unless the call names another one."""
    async with Limiter(url, tenant="team") as limiter:
        await limiter.acquire("p/m", tokens=100)
        await limiter.acquire("p/m", tokens=100, tenant="default")
        with pytest.raises(NeverFits):
            await limiter.acquire("p/m", tokens=501)
        assert (await limiter.check("p/m", tokens=401)).limit == "team.own"
    assert left("team.own", "team") == 400


async def test_money_is_settled_by_what_the_provider_said(limiter: Limiter, left: Left):
    """`cost_usd` passes from `used` to the service."""
    async with limiter.acquire("p/dear", tokens=1, cost_usd=2.5) as lease:
        assert left("dear.spend") == 7.5
        lease.used(input_tokens=10, cost_usd=0.5)
    assert left("dear.spend") == 9.5


async def test_a_trailing_slash_in_the_url_does_no_harm(url: str):
    """Addresses are pasted as they come."""
    async with Limiter(f"{url}/") as limiter:
        assert (await limiter.check("p/m", tokens=1)).would_grant


async def test_a_closed_limiter_says_so(url: str):
    """A call after the end raises; it does not hang."""
    limiter = Limiter(url)
    await limiter.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await limiter.acquire("p/m", tokens=1)


async def test_a_service_that_is_not_there_is_unavailable():
    """The error names the address and is worth a retry."""
    async with Limiter("http://127.0.0.1:1") as limiter:
        with pytest.raises(ServiceUnavailable, match=r"http://127\.0\.0\.1:1 cannot be reached"):
            await limiter.acquire("p/m", tokens=1)
