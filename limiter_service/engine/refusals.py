"""What the engine raises instead of an answer: one exception that carries a Problem."""

from collections.abc import Sequence

from limiter_wire import ErrorCode, LimitState, Problem, QueueState, problem


class Refusal(Exception):  # an answer, not a mistake
    """The request is not served; `problem` says why."""

    def __init__(self, answer: Problem) -> None:
        self.problem = answer
        super().__init__(answer.detail)


def refuse(
    code: ErrorCode,
    detail: str,
    *,
    resource: str | None = None,
    retry_after: float | None = None,
    limit: str | None = None,
    reason: str | None = None,
    would_fit: int | None = None,
    limits: Sequence[LimitState] = (),
    queue: QueueState | None = None,
    degraded: bool = False,
) -> Refusal:
    """A Refusal with the given fields; raise it."""
    return Refusal(
        problem(
            code,
            detail,
            resource=resource,
            retry_after=retry_after,
            limit=limit,
            reason=reason,
            would_fit=would_fit,
            limits=list(limits),
            queue=queue,
            degraded=degraded,
        )
    )
