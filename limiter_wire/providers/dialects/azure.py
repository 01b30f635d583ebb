"""Azure OpenAI: OpenAI's bodies, and 429s of which some are the region's shortage."""

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.failures import Backoff, Impact, Pin, Refund, Retry
from limiter_wire.providers.rules import (
    Rule,
    Verdict,
    exhausted,
    filtered,
    forbidden,
    http,
    missing,
    overloaded,
    stream,
    throttled,
)

# The filter's own backend failed and the content went out unfiltered: nobody's failure here.
_FILTER_FAILED = Verdict(
    category=Outcome.SERVER_ERROR,
    kind="content_filter_backend",
    retry=Retry.NO,
    impact=Impact.NEUTRAL,
    refund=Refund.SETTLE,
    backoff=Backoff.NONE,
)

RULES: tuple[Rule, ...] = (
    http(
        429,
        overloaded("regional_capacity", retry=Retry.ELSEWHERE),
        text=r"high demand|at capacity|during peak load",
    ),
    http(429, exhausted("billing", Pin.DEPLOYMENT), code=r"insufficient_quota"),
    http(
        429,
        throttled("deployment"),
        text=r"exceed(ed)?.{0,40}(token|call) rate limit|retry after 86400",
    ),
    http(
        429,
        throttled("limit_lowered", backoff=Backoff.LONG),
        text=r"temporary rate limit|temporarily",
    ),
    http(429, throttled("unspecified")),
    http(400, filtered("prompt"), code=r"content_filter|ResponsibleAIPolicyViolation"),
    http(404, missing("deployment", Pin.DEPLOYMENT), code=r"DeploymentNotFound"),
    http(403, forbidden("network_or_role")),
    stream(r"content_filter_error", _FILTER_FAILED),
    stream(r"content_filter", filtered("output")),
)
