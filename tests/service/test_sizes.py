"""Learned sizes of calls: one small state for all replicas, decided by a script."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_support.calls import ask, left
from tests_support.waiting import until

from client_sdk.estimate import Ratio
from limiter_service.engine.sizes import (
    Sizes,
    bound,
    calibration,
    expected_output,
    sizes_of,
)
from limiter_service.store.keys import Key, Keys
from limiter_service.store.scripts import Script, load, part

News = Sequence[tuple[float, float, float]]
KEY = Keys("p").sizes("m", "")
LEARN = load("sizes")
HOUR = 3_600_000

EXPECTING = """
pools:
  p:
    models:
      m:
        limits:
          - {name: budget, meter: tokens, limit: 1000000, per: 366d,
             reserve: "input + expected_output"}
"""


def learn(db: redis.Redis, tag: int, news: News, key: Key = KEY, script: Script = LEARN) -> Sizes:
    """Run sizes.lua."""
    numbers = [tag, HOUR, *(number for each in news for number in each)]
    answer = db.eval(script.text, 1, key, struct.pack(f"<{len(numbers)}d", *numbers))
    assert isinstance(answer, bytes)
    assert answer[:9] == struct.pack("<d", tag) + b"G"
    return sizes_of(struct.unpack(f"<{(len(answer) - 9) // 8}d", answer[9:]))


def outputs(*tokens: int) -> News:
    """Calls of which nothing but their outputs is known."""
    return [(float(each), 0.0, 0.0) for each in tokens]


CALLS = st.tuples(
    st.integers(-1, 2**18).map(float),
    st.one_of(st.just(0.0), st.floats(1, 1e5)),
    st.integers(0, 100_000).map(float),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(CALLS, max_size=8), max_size=8))
def test_a_state_is_what_its_reports_say(db: redis.Redis, reports: list[list[Any]]):
    """However they are cut into reports: bins decay with each output, and the ratio is the
    one that an estimator learns for itself.
    """
    db.delete(KEY)
    weights: dict[int, float] = {}
    seen, ratio, found = 0, Ratio(), Sizes()
    for tag, news in enumerate(reports):
        found = learn(db, tag, news)
        for output, estimated, actual in news:
            ratio = ratio.learned(estimated, actual)
            if output >= 0:
                seen += 1
                weights = {b: weight * 0.998 for b, weight in weights.items()}
                place = 0 if output <= 1 else math.ceil(round(8 * math.log2(output), 9))
                weights[place] = weights.get(place, 0.0) + 1
    assert (found.outputs, found.samples) == (seen, ratio.samples)
    assert (found.ratio, found.spread) == pytest.approx((ratio.ratio, ratio.spread))
    kept = {found.first + i: weight for i, weight in enumerate(found.weights) if weight}
    assert kept == pytest.approx(weights)


FAULTS = {
    "older outputs do not fade": ("old * faded", "old"),
    "bins are a quarter too wide": ("* PER_OCTAVE - 1e-9", "* PER_OCTAVE * 0.8 - 1e-9"),
    "an output is not counted": ("s.head[OUTPUTS] + count", "s.head[OUTPUTS]"),
    "all of a report weighs the same": ("weight = weight * KEPT_WEIGHT", "weight = weight"),
    "a mean of all": ("math.max(1 / (n + 1), STEP)", "1 / (n + 1)"),
    "a ratio upside down": ("clamped(actual / estimated)", "clamped(estimated / actual)"),
    "the error before the correction": ("seen / head[RATIO] - 1", "seen - 1"),
    "a repeat counts": ("if s.head[i] == tag then", "if s.head[i] == tag + 0.5 then"),
    "the newest tag goes first": ("s.head[i] = s.head[i + 1]", "s.head[i] = s.head[i]"),
}


@pytest.mark.parametrize(("right", "wrong"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_the_script_is_seen(db: redis.Redis, right: str, wrong: str):
    """Each changes the state that one history of reports leaves."""
    text = part("lib/sizes")
    assert text.count(right) == 1
    broken = load("sizes", {"lib/sizes": text.replace(right, wrong)})
    history = [[(float(7 * i), 10.0, 9.0 + i), (9.0, 0.0, 0.0)] for i in range(1, 30)]
    found = []
    for script in (LEARN, broken):
        db.delete(KEY)
        for tag in range(len(history)):
            for again in (tag, max(0, tag - 1)):  # a repeat may come behind the next report
                learn(db, again, history[again], script=script)
        found.append(learn(db, 99, [], script=script))
    assert found[0] != found[1]


def test_a_report_counts_once(db: redis.Redis):
    """The client repeats a call whose answer was lost: the tag tells, also between others."""
    first = learn(db, 1, outputs(10, 20))
    assert learn(db, 1, outputs(10, 20)) == first
    for tag in range(2, 17):
        learn(db, tag, outputs(5))
    assert learn(db, 1, outputs(10, 20)).outputs == 17
    assert learn(db, 99, []).outputs == 17  # a question is no report


def test_a_state_does_not_grow(db: redis.Redis):
    """Whatever sizes come: some two hundred bins at most, and all of them within bounds."""
    for tag, tokens in enumerate((0, 1, 2, 3, *(int(1.09**i) for i in range(400)))):
        found = learn(db, tag, outputs(tokens))
    assert (found.outputs, len(found.weights)) == (404, 201)
    assert len(db.get(KEY) or b"") <= 8 * (22 + 201)


def test_labels_that_hardly_anybody_uses_are_soon_forgotten(db: redis.Redis):
    """Callers choose routes: ten calls keep one for the whole time."""
    learn(db, 1, outputs(*[7] * 9))
    assert db.pttl(KEY) <= HOUR / 100
    learn(db, 2, outputs(7))
    assert HOUR / 2 < db.pttl(KEY) <= HOUR


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(1, 5000), min_size=5, max_size=60), st.floats(0.05, 1))
def test_a_quantile_is_right_to_a_bin(db: redis.Redis, tokens: list[int], q: float):
    """As the sorted outputs have it, when each weighs a little less than the next one."""
    db.delete(KEY)
    found = learn(db, 1, outputs(*tokens)).quantile(q)
    weighed = [(each, 0.998 ** (len(tokens) - i)) for i, each in enumerate(tokens)]
    low, high = (exact(weighed, q + nearly) for nearly in (-1e-6, 1e-6))
    assert (low / 1.0906 if low > 1 else 0) <= found <= high * 1.0906


def exact(weighed: list[tuple[int, float]], q: float) -> int:
    """The least value that a share of *q* does not exceed."""
    wanted = q * sum(weight for _, weight in weighed)
    for value, weight in sorted(weighed):
        wanted -= weight
        if wanted <= 0:
            return value
    return max(weighed)[0]


def of(*weights: float, outputs: int = 100, first: int = 32) -> Sizes:
    """What was learned; bin 32 ends at 16 tokens."""
    return Sizes(outputs=outputs, weights=weights, first=first)


def test_too_little_seen_is_nothing_known():
    """A route that is new goes by its model; then there is nothing."""
    new, known = of(4, outputs=4), of(9, outputs=9, first=40)
    assert expected_output(new, new) is None
    assert expected_output(new, known) == known.expected_output != new.quantile(0.96)
    assert expected_output(known, new) == known.expected_output
    assert of(99, outputs=99).suggested_max_tokens is None
    assert bound(None, 17, None) == 17
    assert bound(9, 17, None) == 9
    assert bound(None, None, 17) is None


def test_a_suggestion_is_a_stable_bound():
    """The end of a bin, so outputs cut off there keep it where it is; the caller's own
    bound stays.
    """
    found = of(50, 49, 1)
    assert found.suggested_max_tokens == math.floor(2 ** (33 / 8)) == 17
    assert bound(17, 17, 9) == 9
    assert bound(17, 17, 4096) == 17


def test_a_bound_that_cuts_off_stays_where_it_is(db: redis.Redis):
    """Answers that are cut off at the suggestion do not lower the next one."""
    answers = [*[100] * 97, 1000, *[100] * 97, 1000, 1000, 1000, 1000, 5000]
    first = last = learn(db, 0, outputs(*answers)).suggested_max_tokens
    for tag in range(1, 30):
        assert last is not None
        cut = [min(last, each) for each in answers]
        last = learn(db, tag, outputs(*cut)).suggested_max_tokens
    assert first == 1024
    assert last == first


def test_estimates_of_a_new_route_go_by_their_model():
    """Roughly, and marked as such; a model with few samples says nothing."""
    route, model = Sizes(samples=1, ratio=1.5), Sizes(samples=10, ratio=1.2, spread=0.1)
    own, rough = calibration(route, model), calibration(Sizes(), model)
    assert own is not None
    assert rough is not None
    assert (own.ratio, own.samples, own.of_route) == (1.5, 1, True)
    assert (rough.ratio, rough.samples, rough.of_route) == (1.2, 10, False)
    assert calibration(Sizes(), Sizes(samples=9)) is None


async def call(client: httpx.AsyncClient, route: str | None = None, **settle: Any) -> Any:
    """One call of 100 in and 200 out; the answer to its settle."""
    lease = (await ask(client, "acquire", resource="p/m", tokens=1, route=route))["lease"]
    usage = {"input_tokens": 100, "output_tokens": 200}
    return await ask(client, "settle", lease=lease, **{"usage": usage, **settle})


async def held(client: httpx.AsyncClient, route: str, **fields: Any) -> float:
    """What an acquire of 100 in and 4000 out at most holds."""
    sizes = {"input_tokens": 100, "max_output_tokens": 4000} | fields
    answer = await ask(client, "acquire", resource="p/m", route=route, **sizes)
    charged: float = answer["charged"]["tokens"]
    await ask(client, "settle", lease=answer["lease"], outcome="cancelled")
    return charged


async def test_what_one_replica_saw_another_expects(serve: Any):
    """Five calls of a route, through one replica: the next one starts with what they say."""
    first = await serve(EXPECTING)
    assert await held(first, "short") == 4100
    for _ in range(5):
        await call(first, "short")

    async def told() -> bool:
        return await held(await serve(EXPECTING), "short") < 4100

    await until(told, "the second replica does not expect what the first saw")
    second = await serve(EXPECTING)
    assert 297 < await held(second, "short") <= 316
    assert await held(second, "other") <= 316  # a new route: as the model
    assert await held(second, "short", max_output_tokens=50) == 150
    without = {"max_output_tokens": None}
    assert 297 < await held(second, "short", **without) <= 316  # no bound: the usual size


async def test_only_whole_answers_are_learned_from(serve: Any, db: redis.Redis):
    """A failed call, or figures that are no provider's own, say nothing about sizes."""
    client = await serve(EXPECTING)
    for _ in range(5):
        await call(client, outcome="stream_interrupted")
        await call(client, usage={"input_tokens": 9, "output_tokens": 9, "provenance": "partial"})
    await call(client, "only")

    async def told() -> bool:
        return bool(db.exists(Keys("p").sizes("m", "only")))

    await until(told, "the store is not told")
    assert learn(db, 1, []).outputs == 1


async def test_answers_suggest_a_bound(serve: Any, db: redis.Redis):
    """Acquire and check alike, by route, never above the caller's own."""
    learn(db, 1, outputs(*[200] * 100), Keys("p").sizes("m", "short"))
    client = await serve()
    asked = {"resource": "p/m", "input_tokens": 1, "route": "short"}
    checked = await ask(client, "check", **asked)
    assert 200 <= checked["suggested_max_tokens"] <= 215
    granted = await ask(client, "acquire", **asked, max_output_tokens=900)
    assert granted["suggested_max_tokens"] == checked["suggested_max_tokens"]
    assert (await ask(client, "acquire", **asked, max_output_tokens=9))["suggested_max_tokens"] == 9
    plain = await ask(client, "acquire", resource="p/m", tokens=1)
    assert plain["suggested_max_tokens"] is None


async def test_estimates_are_calibrated_for_everybody(serve: Any):
    """A settle brings what was estimated; another replica hands the ratio out."""
    first = await serve()
    answer = await call(first, "chat", estimated_input_tokens=50.0)
    assert "calibration" not in answer

    async def told() -> bool:
        another = await serve()
        asked = await ask(another, "check", resource="p/m", tokens=1, route="chat")
        return "calibration" in asked

    await until(told, "nobody is told of the ratio")
    checked = await ask(await serve(), "check", resource="p/m", tokens=1, route="chat")
    assert checked["calibration"] == {"ratio": 2.0, "spread": 0.0, "samples": 1, "of_route": True}
    assert (await call(first, "chat", estimated_input_tokens=50.0))["calibration"]["ratio"] == 2
    assert await left(first) == 400


async def test_the_store_hears_of_the_last_calls_before_a_replica_ends(
    db: redis.Redis, server: Any, write_config: Any
):
    """What is held back for a moment is told at the end."""
    from tests_support.service import http_client, in_process  # noqa: PLC0415  # only here

    async with in_process(server.url, write_config(EXPECTING)) as app, http_client(app) as client:
        await call(client, "last")
    assert learn(db, 1, [], Keys("p").sizes("m", "last")).outputs == 1
