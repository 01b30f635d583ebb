"""What a settle says to the scripts, and what a lease that is no more says to its caller. Pure."""

from collections.abc import Sequence

from limiter_service.engine import breaking, charging, learning
from limiter_service.engine.policy import Policy
from limiter_service.engine.refusals import refuse
from limiter_service.store.messages import Reply, Report, Verdict
from limiter_wire import ErrorCode, Outcome, Provenance, Settle

_MICRO = 1_000_000
_SUCCESS, _UNKNOWN = Outcome.SUCCESS, Provenance.UNKNOWN
_UNKNOWN_LEASE, _EXPIRED = Verdict.UNKNOWN, Verdict.EXPIRED

PLAIN = Report(
    first_token=False,
    outcome_class=breaking.Class.SUCCESS,
    kind=breaking.KINDS.index(Outcome.SUCCESS),
    slow=False,
    retry_after=0,
    used=(),
)
"""What nearly all settles say, but for what was used."""


def used_plainly(policy: Policy, report: Settle) -> Sequence[float] | None:
    """What a settle has used of each limit that says nothing else but PLAIN; else None."""
    usage, ttft = report.usage, report.ttft
    if (
        usage is None
        or usage.provenance is _UNKNOWN
        or report.outcome is not _SUCCESS
        or report.headers is not None
        or report.spent is not None
        or report.retry_after is not None
        or report.phase is not None
        or report.cause is not None
        or (ttft is not None and ttft >= policy.slow_after)
    ):
        return None
    return charging.used_by_shape(policy, usage, report.cost_usd)


def told_by(policy: Policy, report: Settle, now: float) -> Report:
    """What a settle says to the scripts; *now* is in Unix seconds."""
    said, pause = learning.told_by(policy, report, now)
    return Report(
        first_token=report.phase == "first_token",
        outcome_class=breaking.class_of(report),
        kind=breaking.error_number(report),
        slow=report.ttft is not None and report.ttft >= policy.slow_after,
        retry_after=int(pause * _MICRO),
        readings=said,
        used=charging.used(
            policy,
            report.usage,
            report.cost_usd,
            report.outcome,
            None if report.cause is None else report.cause.refund,
        ),
    )


def refuse_dead_lease(reply: Reply, policy: Policy) -> None:
    """Raise Refusal where there is nothing to report on."""
    if reply.verdict is _UNKNOWN_LEASE:
        raise refuse(
            ErrorCode.UNKNOWN_LEASE,
            "no such lease: it was never granted, or ended long ago",
            resource=policy.resource,
        )
    if reply.verdict is _EXPIRED:
        raise refuse(
            ErrorCode.LEASE_EXPIRED,
            "the lease expired before this report; its tokens stay spent",
            resource=policy.resource,
        )
