"""Script calls that name the boundaries of calendar windows."""

from collections.abc import Awaitable, Callable

from limiter_service.engine.policy import Policy
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.store.errors import StoreError, StoreNotReplicated, StoreUnavailable
from limiter_service.store.messages import Chain, Reply, Verdict
from limiter_wire import ErrorCode

_RETRY_AFTER = 1.0
_ATTEMPTS = 3


class Calls:
    """Runs scripts by this host's clock, and by the store's once that has said it differs.

    `wall_us` is the host's clock in Unix microseconds: it only chooses the boundaries, and the
    scripts refuse a wrong choice.
    """

    def __init__(self, wall_us: Callable[[], float]) -> None:
        self._wall_us = wall_us
        self._ahead = 0.0

    def now_us(self) -> float:
        """The store's clock, as far as it is known."""
        return self._wall_us() + self._ahead

    def correct(self, store_us: float) -> None:
        """Take in what the store's clock says."""
        self._ahead = store_us - self._wall_us()

    async def run(self, policy: Policy, call: Callable[[Chain], Awaitable[Reply]]) -> Reply:
        """Run *call*; again when the store's clock is in another calendar window. Raises
        Refusal.
        """
        try:
            for _ in range(_ATTEMPTS):
                reply = await call(policy.chain(self.now_us()))
                if reply.verdict is not Verdict.STALE:
                    return reply
                self.correct(reply.numbers[0])
        except StoreError as error:
            raise store_refusal(error, policy.resource) from error
        raise refuse(
            ErrorCode.STORE_UNAVAILABLE,
            "the store's clock does not stay in any calendar window",
            resource=policy.resource,
            retry_after=_RETRY_AFTER,
        )


def store_refusal(error: StoreError, resource: str | None) -> Refusal:
    """The refusal for a store that does not answer, or not in our terms."""
    if isinstance(error, StoreUnavailable):
        detail = f"the store did not answer: {error}"
    elif isinstance(error, StoreNotReplicated):
        detail = f"{error}: ask again with the same request_id"
    else:
        detail = f"the store's answer makes no sense: {error}"
    return refuse(ErrorCode.STORE_UNAVAILABLE, detail, resource=resource, retry_after=_RETRY_AFTER)
