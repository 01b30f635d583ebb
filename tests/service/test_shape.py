"""Grants that have a shape, seen without explaining them: the same as by the long way."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk._answers import Forms, frames
from limiter_service import http, replies, stencil
from limiter_service.config import parse
from limiter_service.engine import breaking, charging, demands
from limiter_service.engine.answers import (
    MARKS,
    granted,
    history_of,
    lease_id,
    scopes_of,
    settled,
)
from limiter_service.engine.levels import read
from limiter_service.engine.policy import SLOTS_OF_A_WINDOW, Limit, Policies, Policy, slot_width
from limiter_service.engine.shape import Taken
from limiter_service.store.claims import claim_in, named
from limiter_service.store.messages import Reply, Verdict
from limiter_service.store.packing import unpack
from limiter_wire import Acquire, Calibration, Granted, Outcome, Provenance, Settled, Usage

CONFIG = """
pools:
  p:
    rpm: 100
    cost_in_requests: true
    prices: {dear: {input: 1, output: 2}}
    models:
      m: {rpm: 60, tpm: 1000, rpd: 5000}
      weighed:
        limits:
          - {meter: tokens, limit: 600, per: 60, weights: {cache_read: 0.25}, name: w}
          - {meter: input_tokens, limit: 600, per: 60, settle: none, name: n}
      "odd%s'": {rpm: 60}
      burst: {limits: [{meter: tokens, limit: 600, per: 60, burst: 7.5, name: b}]}
      windowed:
        concurrency: 64
        limits:
          - {meter: requests, limit: 60, per: 60, window: sliding, name: s}
          - {meter: tokens, limit: 10, per: 60, mode: shadow, name: o}
          - {meter: tokens, limit: 900, per: hour, window: sliding, mode: shadow, name: h}
      dear:
        tpm: 1000
        limits:
          - {meter: cost_usd, limit: 60.5, per: 60, name: c}
          - {meter: cost_usd, limit: 20, per: day, window: calendar, name: d}
          - {meter: cost_usd, limit: 30, per: 60, settle: none, name: n}
          - {meter: requests, limit: 30, per: month, window: calendar, timezone: Europe/Berlin}
      free: {limits: [{meter: cost_usd, limit: 60, per: 60}]}
      growing:
        limits: [{meter: requests, limit: 60, per: 60, ramp: {start: 5, factor: 2, period: 10}}]
    tenants:
      team: {tpd: 9000, models: {m: {input_tpm: 300, output_tpm: 400}}}
"""
POLICIES = Policies(parse(CONFIG, ".yaml"), "x:")
NAMES = [
    ("p/m", "anybody"),
    ("p/odd%s'", "anybody"),
    ("p/m", "team"),
    ("p/burst", "team"),
    ("p/windowed", "team"),
    ("p/dear", "team"),
]
TIMES = st.floats(0, 4e15)
LEVELS = st.floats(-1e12, 1e12) | st.integers(-10, 1000).map(float)


def policy_of(name: tuple[str, str]) -> Policy:
    """A policy whose grants have a shape."""
    policy = POLICIES.policy(*name)
    assert policy.shape is not None
    return policy


@st.composite
def leases(draw: st.DrawFn) -> tuple[Policy, list[float], list[float]]:
    """A policy, the amounts of a request, and a new lease under it."""
    policy = policy_of(draw(st.sampled_from(NAMES)))
    amounts = [float(draw(st.integers(1, 10**6))) for _ in policy.limits]
    lease = [5.0, 6.0, draw(st.sampled_from([6e7, 1.5e6])), 7.0, 0.0, 0.0, 1.0, 0.0]
    lease += [float(len(amounts)), *amounts]
    limits = iter(policy.limits)
    for part in policy.chain(0).policies:
        count = int(unpack(part)[1])
        lease += [draw(TIMES), float(count), draw(TIMES), draw(LEVELS), draw(TIMES)]
        now = lease[-3]
        for _ in range(count):
            limit = next(limits)
            lease += [float(limit.id), *draw(cells(policy, limit, now))]
    return policy, amounts, lease


@st.composite
def cells(draw: st.DrawFn, policy: Policy, limit: Limit, now: float) -> list[float]:
    """The cell of a limit."""
    level = draw(LEVELS | st.floats(-limit.capacity, limit.capacity))
    match limit.window:
        case "bucket":
            return [min(level, limit.capacity)]
        case "concurrency":
            return [float(draw(st.integers(0, 100)))]
        case "calendar":
            edges = [policy.window_start(limit, 0), policy.next_edge(limit, 0)]
            return [draw(st.sampled_from([*edges, 0.0, 4e15])), level]
        case _:
            slots = [0.0] * (SLOTS_OF_A_WINDOW + 1)
            for slot in draw(st.lists(st.integers(0, SLOTS_OF_A_WINDOW), max_size=3)):
                slots[slot] = 1.0
            return [float(now // slot_width(limit)), level, *slots]


def taken(policy: Policy, amounts: list[float], lease: list[float]) -> Taken:
    """The grant by the short way."""
    shape = policy.shape
    assert shape is not None
    assert shape.fits(lease)
    charged = shape.charged(amounts)
    told, circuit = msgspec.msgpack.encode(charged), breaking.circuit(lease[MARKS])
    return Taken(
        shape, lease_id(policy, "r", lease, None), lease[2] / 1e6, charged, told, lease, circuit
    )


@given(leases(), st.sampled_from(range(6)), st.none() | st.integers(1, 2**40))
def test_an_answer_over_http_is_the_same_by_either_way(
    found: tuple[Policy, list[float], list[float]], circuit: int, suggested: int | None
):
    """In JSON byte by byte, headers and all; in msgpack numbers may have another form."""
    short = taken(*found)
    short.circuit, short.suggested = circuit, suggested
    long = replies.told(short.granted(), http.JSON, "name")
    assert replies.granted(short, http.JSON, "name") == replies.whole(long)
    head, _, body = replies.granted(short, http.MSGPACK, "name").partition(b"\r\n\r\n")
    assert msgspec.msgpack.decode(body, type=Granted) == short.granted()
    assert b"content-length: %d" % len(body) in head


@given(leases(), st.data())
def test_a_grant_is_the_same_by_either_way(
    found: tuple[Policy, list[float], list[float]], data: st.DataObject
):
    """What is left, when it is full again, what was charged: as where it is explained."""
    policy, _, lease = found
    lease[MARKS] = data.draw(st.sampled_from([0.0, 32.0, 128.0, 256.0, 256.0 + 32.0 + 512.0]))
    short, long = taken(*found), granted(policy, "r", lease)
    assert short.granted() == long
    assert list(short.charged) == list(long.charged)
    assert msgspec.json.encode(short.granted()) == msgspec.json.encode(long)


@given(
    leases(),
    st.integers(0, 2**53) | st.text(min_size=1, max_size=40),
    st.none() | st.integers(1, 2**40),
)
def test_a_stencil_says_what_the_encoder_says(
    found: tuple[Policy, list[float], list[float]], name: int | str, suggested: int | None
):
    """Field by field, in the order of the type, as a grant and as a frame."""
    grant = taken(*found)
    grant.suggested = suggested
    whole = msgspec.to_builtins(grant.granted())
    assert msgspec.msgpack.decode(stencil.grant(grant)) == whole
    assert msgspec.msgpack.decode(stencil.grant(grant), type=Granted) == grant.granted()
    told = msgspec.msgpack.decode(stencil.frame(name, grant))
    assert list(told) == ["id", "status", *whole]
    assert told == {"id": name, "status": 200, **whole}


@given(st.lists(st.tuples(leases(), st.integers(0, 2**53)), min_size=1, max_size=9))
def test_a_channel_hears_of_limits_in_full_once_and_then_of_their_levels(
    found: list[tuple[tuple[Policy, list[float], list[float]], int]],
):
    """The SDK makes the same of either, whatever the order."""
    told, forms, met = stencil.Told(), Forms(), set[object]()
    for lease, name in found:
        grant = taken(*lease)
        frame = told.frame(name, grant)
        (heard,) = frames(b"\x91" + frame)
        assert (heard.id, heard.status) == (name, 200)
        assert (heard.levels is not None) == (grant.shape in met and grant.shape.fills is not None)
        met.add(grant.shape)
        heard.formed(forms)
        assert heard.whole() == grant.granted()


def test_a_channel_knows_so_many_chains_and_hears_of_others_in_full(
    monkeypatch: pytest.MonkeyPatch,
):
    """Callers make up names of models."""
    monkeypatch.setattr(stencil, "MOST_FORMS", 1)
    told = stencil.Told()
    grants = [
        Taken(shape, "l", 1.0, {"tokens": 1}, b"\x80", (1.0,) * shape.length, 0)
        for shape in (policy_of(NAMES[0]).shape, policy_of(NAMES[2]).shape)
        if shape is not None
    ]
    brief = ["levels" in msgspec.msgpack.decode(told.frame(1, grants[i])) for i in (0, 1, 0, 1)]
    assert brief == [False, False, True, False]
    assert told.frame(1, grants[1]) == stencil.frame(1, grants[1])


@given(leases(), st.data())
def test_the_history_of_a_lease_is_the_same_by_either_way(
    found: tuple[Policy, list[float], list[float]], data: st.DataObject
):
    """What was moved, and how long it was held; also of a lease from before a reload."""
    policy, amounts, lease = found
    lease[5] = data.draw(st.floats(1, 4e15))
    lease += [float(data.draw(st.integers(-100, 100))) for _ in amounts]
    if data.draw(st.booleans()):  # its last limit is no more
        lease[9 + len(amounts) + 5] += 4.0
    short, shape = history_of(policy, lease), policy.shape
    policy.shape = None
    try:
        long = history_of(policy, lease)
    finally:
        policy.shape = shape
    assert short is not None
    assert long is not None
    assert list(short.limit_ids) == list(long.limit_ids)
    assert list(short.moved) == list(long.moved)
    assert short.held == long.held


@given(
    leases(),
    st.data(),
    st.integers(0, 2**53) | st.text(min_size=1, max_size=40),
    st.sampled_from([Verdict.DONE, Verdict.DONE_WHILE_OTHERS_WAIT, Verdict.ALREADY]),
)
def test_a_settle_is_answered_the_same_by_either_way(
    found: tuple[Policy, list[float], list[float]],
    data: st.DataObject,
    name: int | str,
    verdict: Verdict,
):
    """What has moved of each meter, also of parts; and a stencil says what the encoder says, but
    nothing to a repeat.
    """
    policy, amounts, lease = found
    lease[5] = data.draw(st.floats(1, 4e15))
    lease[MARKS] = data.draw(st.sampled_from([0.0, 32.0, 128.0, 256.0]))
    moves = st.integers(-100, 100).map(float) | st.floats(-100, 100)
    lease += [data.draw(moves) for _ in amounts]
    reply, shape = Reply(verdict, lease), policy.shape
    history = history_of(policy, lease)
    answer = settled(policy, reply, history)
    policy.shape = None
    try:
        assert settled(policy, reply, history) == answer
    finally:
        policy.shape = shape
    said = stencil.settled_frame(name, answer)
    assert (said is None) is answer.already_settled
    if said is not None:
        whole = msgspec.to_builtins(answer)
        told = msgspec.msgpack.decode(said)
        assert list(told) == ["id", "status", *whole]
        assert told == {"id": name, "status": 200, **whole}


def test_a_stencil_says_nothing_of_settles_that_are_unlike_the_others():
    """A first token, a repeat, an estimate that was compared, a store that is lost."""
    known = Calibration(ratio=1.0, spread=0.1, samples=3, of_route=False)
    unlike = [
        Settled(settled=False),
        Settled(already_settled=True),
        Settled(calibration=known),
        Settled(degraded=True),
    ]
    assert [stencil.settled_frame(1, each) for each in unlike] == [None] * 4
    assert stencil.settled_frame(1, Settled()) is not None


def test_a_chain_may_be_longer_than_a_short_array():
    """Sixteen limits and more are counted in two bytes."""
    limits = ", ".join(f"{{meter: tokens, limit: {n}, per: 60, name: l{n}}}" for n in range(1, 21))
    config = parse(f"pools: {{p: {{models: {{m: {{limits: [{limits}]}}}}}}}}", ".yaml")
    shape = Policies(config, "x:").policy("p/m", "a").shape
    assert shape is not None
    grant = Taken(shape, "l", 1.0, {"tokens": 1}, b"\x80", (1.0,) * shape.length, 0)
    found = msgspec.msgpack.decode(stencil.grant(grant), type=Granted)
    assert [limit.limit for limit in found.limits] == list(range(1, 21))


@given(leases(), st.data())
def test_a_lease_of_another_layout_is_left_to_the_long_way(
    found: tuple[Policy, list[float], list[float]], data: st.DataObject
):
    """One with terms that are learned has a negative version, and is longer."""
    policy, _, lease = found
    shape = policy.shape
    assert shape is not None
    assert not shape.fits([*lease, 1.0])
    start = 9 + len(policy.limits)
    at = data.draw(st.sampled_from([start]))
    lease[at] = -1.0 - abs(lease[at])
    assert not shape.fits(lease)


@pytest.mark.parametrize("model", ["free", "growing"])
def test_what_differs_from_call_to_call_has_no_shape(model: str):
    """Money without a price, and ramps, have to be explained."""
    assert POLICIES.policy(f"p/{model}", "anybody").shape is None


def test_a_shadow_without_room_is_left_to_the_long_way():
    """It says so of its limit, and nothing was charged."""
    policy = policy_of(("p/windowed", "team"))
    shape = policy.shape
    assert shape is not None
    lease = [0.0] * shape.length
    assert shape.fits(lease)
    for place, limit in enumerate(policy.limits):
        if limit.shadow:
            assert not shape.fits([*lease[: 9 + place], -1.0, *lease[10 + place :]])


@given(leases())
def test_budgets_are_where_the_long_way_finds_them(
    found: tuple[Policy, list[float], list[float]],
):
    """How fast they are spent is seen alike."""
    policy, _, lease = found
    assert policy.shape is not None
    levels, _ = read(lease, *scopes_of(lease))
    assert list(policy.shape.budgets(lease)) == [
        (limit.id, *level.cell, level.wall)
        for limit, level in zip(policy.limits, levels, strict=True)
        if limit.window == "calendar"
    ]


SIZES = st.none() | st.integers(1, 10**6)


@given(
    st.sampled_from(NAMES),
    st.integers(1, 10**6),
    st.none() | st.text(min_size=1, max_size=9),
    st.integers(1, 3),
)
def test_a_usual_demand_is_that_of_the_long_way(
    name: tuple[str, str], tokens: int, worker: str | None, attempt: int
):
    """The same is asked of the store."""
    policy = policy_of(name)
    request = Acquire(resource=name[0], tokens=tokens, worker=worker, attempt=attempt)
    found = demands.usual(policy, request)
    assert found is not None
    assert found == demands.demand(policy, request, charging.reserve(policy, request, None))
    assert found.again == (attempt > 1)
    assert msgspec.msgpack.decode(found.told) == found.charged
    claim = claim_in(named(7, found.asked))
    assert claim.nonce == 7
    assert claim.amounts == found.amounts
    assert claim.ttl == policy.lease_ttl * 1e6


@given(
    st.sampled_from(NAMES),
    SIZES,
    SIZES,
    SIZES,
    st.none() | st.integers(1, 9),
    st.none() | st.floats(1, 100),
    st.none() | st.floats(0, 1),
)
def test_a_demand_is_usual_when_it_gives_tokens_alone(
    name: tuple[str, str],
    tokens: int | None,
    given_: int | None,
    most: int | None,
    cached: int | None,
    ttl: float | None,
    cost: float | None,
):
    """Everything else is read the long way, which also says what is wrong with it."""
    request = Acquire(
        resource=name[0],
        tokens=tokens,
        input_tokens=given_,
        max_output_tokens=most,
        cache_read_tokens=cached,
        ttl=ttl,
        cost_usd=cost,
    )
    more = (given_, most, cached, ttl, cost)
    usual = tokens is not None and all(each is None for each in more)
    assert (demands.usual(policy_of(name), request) is not None) is usual


USAGES = st.builds(
    Usage,
    input_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    cache_read_tokens=st.integers(0, 10**6),
    cache_write_tokens=st.integers(0, 10**6),
    reasoning_tokens=st.integers(0, 10**6),
    provenance=st.sampled_from(Provenance),
)


@given(
    st.sampled_from([*NAMES, ("p/weighed", "team")]),
    USAGES,
    st.none() | st.floats(0, 100),
    st.sampled_from(Outcome),
)
def test_what_a_call_has_used_is_the_same_by_either_way(
    name: tuple[str, str], usage: Usage, cost_usd: float | None, outcome: Outcome
):
    """Also where kinds of tokens weigh differently, or nothing is settled."""
    policy = policy_of(name)
    found = charging.used(policy, usage, cost_usd, outcome)
    shape = policy.shape
    policy.shape = None
    try:
        assert list(found) == list(charging.used(policy, usage, cost_usd, outcome))
    finally:
        policy.shape = shape
