"""Settles that say nothing unusual, packed without looking at what they do not say."""

from hypothesis import given
from hypothesis import strategies as st

from limiter_service.config import parse
from limiter_service.engine.policy import Policies
from limiter_service.engine.reports import PLAIN, told_by, used_plainly
from limiter_service.store.claims import kin_of_settle, plainly_reporting, reporting
from limiter_wire import Cause, Outcome, Provenance, Settle, Usage

CONFIG = """
pools:
  p:
    breaker: {slow_ttft: 2}
    models:
      m: {rpm: 60, tpm: 1000, rpd: 5000}
      windowed: {limits: [{meter: requests, limit: 60, per: 60, window: sliding}]}
      weighed: {limits: [{meter: tokens, limit: 60, per: 60, weights: {cache_read: 0.25}}]}
      dear: {concurrency: 9, limits: [{meter: cost_usd, limit: 6, per: day, window: calendar}]}
    prices: {dear: {input: 2.5, output: 10}}
"""
POLICIES = Policies(parse(CONFIG, ".yaml"), "x:")
SECONDS = st.none() | st.floats(0, 5)
REPORTS = st.builds(
    Settle,
    lease=st.just("x"),
    outcome=st.just(Outcome.SUCCESS) | st.sampled_from(Outcome),
    usage=st.none()
    | st.builds(
        Usage,
        input_tokens=st.integers(0, 1000),
        output_tokens=st.integers(0, 1000),
        reasoning_tokens=st.integers(0, 1000),
        provenance=st.just(Provenance.FINAL) | st.sampled_from(Provenance),
    ),
    cost_usd=SECONDS,
    latency=SECONDS,
    ttft=SECONDS,
    retry_after=st.none() | st.none() | st.floats(0, 5),
    headers=st.none() | st.none() | st.just({"x-ratelimit-limit-requests": "60"}),
    phase=st.none() | st.none() | st.just("first_token"),
    cause=st.none() | st.none() | st.just(Cause(status=500)),
)


@given(st.sampled_from(["m", "windowed", "weighed", "dear"]), REPORTS)
def test_what_is_plain_is_told_to_the_scripts_as_what_is_not(model: str, report: Settle):
    """Byte by byte, and may be decided with others where the limits are ordinary; it counts here
    as what it says there.
    """
    policy = POLICIES.policy(f"p/{model}", "anybody")
    told, used = told_by(policy, report, 1e9), used_plainly(policy, report)
    ordinary = POLICIES.policy("p/m", "anybody").chain(0)
    assert ordinary.settling is not None
    usual = (
        model != "weighed"
        and kin_of_settle(ordinary, told) is ordinary.settling
        and told.retry_after == 0
        and report.headers is None
        and report.cause is None
        and report.retry_after is None
        and report.usage is not None
        and report.usage.provenance is not Provenance.UNKNOWN
    )
    assert (used is not None) is usual
    if used is not None:
        assert plainly_reporting(7, 8, used) == reporting(7, 8, told)
        for field in ("first_token", "outcome_class", "kind", "slow", "retry_after", "readings"):
            assert getattr(PLAIN, field) == getattr(told, field)
