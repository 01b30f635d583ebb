"""Real calls and real streams that end in every way there is, and what they do to a circuit."""

from typing import Any

import msgspec
import pytest
from dirty_equals import IsPartialDict
from tests_support.crowd_member import Call, Take
from tests_support.races import PATIENT, Fleet
from tests_support.waiting import until

pytestmark = PATIENT

BRIEF = 0.4
"""Seconds of patience with a provider that says nothing."""

UNREACHABLE = "http://127.0.0.1:9"
"""Where nobody listens."""


def stream(fault: str = "", **how: Any) -> Call:
    """A streamed call."""
    return Call(resource="", fault=fault, stream=True, **how)


def call(fault: str = "", **how: Any) -> Call:
    """A call that is answered at once."""
    return Call(resource="", fault=fault, **how)


WELL = {
    "a stream to its end": stream(),
    "an answer": call(),
    "a stream without its terminator": stream("no-terminator"),
    "a stream whose body does not end": stream("hold-open"),
    "pings before every chunk": stream("pings=3"),
}
FAILED = {
    "nobody listens": call(provider=UNREACHABLE),
    "reset in place of an answer": stream("drop-before-headers; reset"),
    "500": call("status=500"),
    "502": call("status=502"),
    "503": stream("status=503"),
    "504": call("status=504"),
    "server error": call("server-error"),
    "overloaded": call("overloaded"),
    "529": call("status=529"),
    "no answer in time": call("stall-before-headers", patience=BRIEF),
    "no head in time": stream("stall-before-headers", patience=BRIEF),
    "no first token in time": stream("stall-before-token", patience=BRIEF),
    "pings and no first token": stream("ping-only; every=0.05", patience=BRIEF),
    "stuck in the middle": stream("stall-after-chunks=3", patience=BRIEF),
    "an end before any content": stream("truncate-after-chunks=0"),
    "an end in the middle": stream("truncate-after-chunks=3"),
    "closed in the middle": stream("drop-after-chunks=3"),
    "reset in the middle": stream("drop-after-chunks=3; reset"),
    "an error event": stream("error-after-chunks=2; kind=server-error"),
    "an event that it is overloaded": stream("error-after-chunks=2; kind=overloaded"),
    "garbage in the middle": stream("garbage-after-chunks=2"),
    "a page": stream("html"),
}
NEUTRAL = {
    "bad request": call("status=400"),
    "unprocessable": call("status=422"),
    "too large": call("status=413"),
    "unknown model": call("model-not-found"),
    "too long": stream("context-length"),
    "filtered": call("content-filter"),
    "the caller hangs up": stream(leave=2),
    # As a connection that was idle for too long is closed: it says nothing about the provider.
    "closed in place of an answer": call("drop-before-headers"),
}


async def one_probe(fleet: Fleet, how: Call) -> dict[str, Any]:
    """Make the one call that a circuit lets through; its view afterwards."""
    (worker,) = fleet.members
    await fleet.trip(worker)
    lease = await fleet.take(worker)
    assert (await fleet.view())["probes"]["held"] == 1
    how = msgspec.structs.replace(how, resource=fleet.resource, lease=lease)
    said = await worker.do(how)
    assert said.what == "settled", said
    return await fleet.view()


async def one_call(fleet: Fleet, how: Call) -> dict[str, Any]:
    """Make one call under a closed circuit; the window afterwards."""
    (worker,) = fleet.members
    said = await worker.do(msgspec.structs.replace(how, resource=fleet.resource))
    assert said.what == "settled", said
    view = await fleet.view()
    assert view["state"] == "closed"
    window: dict[str, Any] = view["window"]
    return window


@pytest.mark.parametrize("how", WELL)
async def test_what_ends_well_is_a_success_and_a_vote(recruit: Any, how: str):
    """Once each, though a stream reports its first token and its end."""
    assert await one_call(await recruit("firm", 1), WELL[how]) == IsPartialDict(ok=1, fail=0)
    view = await one_probe(await recruit("fragile", 1), WELL[how])
    assert (view["state"], view["probes"]["ok"], view["probes"]["held"]) == ("half_open", 1, 0)


@pytest.mark.parametrize("how", FAILED)
async def test_what_ends_badly_is_one_failure_and_opens_again(recruit: Any, how: str):
    """Also after its first token, which was a success: it is not counted as two calls."""
    assert await one_call(await recruit("firm", 1), FAILED[how]) == IsPartialDict(ok=0, fail=1)
    fleet = await recruit("fragile", 1)
    view = await one_probe(fleet, FAILED[how])
    # Also a probe that had voted with its first token.
    assert (view["state"], view["open_count"]) == ("open", 2)


@pytest.mark.parametrize("how", NEUTRAL)
async def test_what_is_nobodys_fault_has_no_vote(recruit: Any, how: str):
    """The place of the probe is free for the next; the window has at most its first token."""
    assert await one_call(await recruit("firm", 1), NEUTRAL[how]) == IsPartialDict(fail=0)
    view = await one_probe(await recruit("fragile", 1), NEUTRAL[how])
    assert (view["state"], view["probes"]["held"]) == ("half_open", 0)


async def test_a_throttled_call_pauses_and_frees_its_place(recruit: Any):
    """It is no failure, in a closed circuit or a half-open one."""
    how = stream("rate-limit; retry-after=9")
    window = await one_call(await recruit("firm", 1), how)
    assert window == IsPartialDict(ok=0, fail=0, throttle=1)
    view = await one_probe(await recruit("fragile", 1), how)
    assert (view["state"], view["reason"]) == ("half_open", "cooldown")
    assert (view["probes"]["held"], view["probes"]["ok"], view["open_count"]) == (0, 0, 1)


async def test_a_slow_first_token_counts_as_slow_and_a_slow_probe_opens_again(recruit: Any):
    """Though both calls end well."""
    window = await one_call(await recruit("firm", 1), stream(slow=True))
    assert window == IsPartialDict(ok=1, slow=1, fail=0)
    view = await one_probe(await recruit("fragile", 1), stream(slow=True))
    assert (view["state"], view["open_count"]) == ("open", 2)


@pytest.mark.parametrize(
    ("fault", "times", "latch"),
    [
        ("insufficient-quota", 1, "quota_exhausted"),
        ("bad-key", 2, "credentials_refused"),
        ("permission", 2, "credentials_refused"),
    ],
)
async def test_an_account_that_is_refused_is_latched_and_its_circuits_stay_closed(
    recruit: Any, fault: str, times: int, latch: str
):
    """Every worker hears of it, on every model of the pool."""
    fleet = await recruit("latches", 4)
    how = Call(resource=fleet.resource, fault=fault)
    for worker in fleet.members[:times]:
        assert (await worker.do(how)).what == "settled"
    for worker in fleet.members:
        said = await worker.do(Take(resource="latches/another"))
        assert (said.what, said.code) == ("refused", "latched")
    view = await fleet.view()
    assert (view["state"], view["window"]["fail"]) == ("closed", 0)
    listed = (await fleet.replicas[1].get("/v1/breakers?provider=latches")).json()
    assert [each["latch"] for each in listed["providers"]] == [latch]
    await fleet.replicas[0].post(f"/v1/breakers/{fleet.resource}/reset")

    async def granted() -> bool:
        return (await fleet.members[-1].do(Take(resource="latches/another"))).what == "granted"

    await until(granted, "the reset does not lift the latch")
