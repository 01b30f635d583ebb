"""Which resources the breaker refuses, as this process has heard: asking again helps nobody.

While the service has said that a resource is refused, acquires of it are refused here, and one
a second goes through to look. Time is an argument; threads may share it.
"""

import threading

import msgspec

from client_sdk.errors import BreakerOpen, RateLimited, Refused, RetryBudgetExhausted
from limiter_wire import ErrorCode

LOOK_EVERY = 1.0
"""Seconds between two questions about a resource that is refused."""

_MOST = 1000


class _Denial(msgspec.Struct):
    """One refusal that still holds: until when, and when to look. Both count from the moment
    when the question was sent, so neither is later than the service meant.
    """

    asked: float
    until: float
    look_at: float
    code: ErrorCode | None
    reason: str | None


class Denials:
    """What is refused; of at most a thousand resources, the one heard of first goes first.

    Nearly always nothing is `known`, and then there is nothing to ask or tell.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.known: dict[str, _Denial] = {}

    def refusal(
        self, resource: str, max_wait: float, request_id: str | None, now: float
    ) -> BreakerOpen | None:
        """The refusal of an acquire, None when it has to ask: because nothing is known, because
        it may wait for as long as the refusal holds, or because it is time to look.
        """
        with self._lock:
            known = self.known.get(resource)
            if known is None:
                return None
            left = known.until - now
            if left <= 0:
                del self.known[resource]
                return None
            if max_wait >= left:
                return None
            if now >= known.look_at:
                known.look_at = now + LOOK_EVERY
                return None
        return BreakerOpen(
            f"{known.reason or known.code}, as the service has said; "
            f"it can be tried again in {left:.3f} s",
            resource=resource,
            request_id=request_id,
            retry_after=left,
            phase="acquire",
            code=known.code,
            reason=known.reason,
        )

    def heard(self, resource: str, refusal: Refused, asked: float) -> None:
        """Take in what the service said to a question that was sent at *asked*."""
        if isinstance(refusal, BreakerOpen):
            self._note(resource, refusal, asked)
        elif type(refusal) in {RateLimited, RetryBudgetExhausted}:
            self.forget(resource)  # the breaker is asked before the limits: it let this pass

    def forget(self, resource: str) -> None:
        """The service has let a call pass."""
        with self._lock:
            self.known.pop(resource, None)

    def closed(self, resource: str) -> None:
        """A settle has said that the circuit is closed; a cooldown or a latch may go on."""
        with self._lock:
            known = self.known.get(resource)
            if known is not None and known.code is ErrorCode.BREAKER_OPEN:
                del self.known[resource]

    def _note(self, resource: str, refusal: BreakerOpen, asked: float) -> None:
        if not refusal.retry_after:
            return
        with self._lock:
            known = self.known.get(resource)
            if known is not None and known.asked > asked:
                return  # an answer that was overtaken
            if known is None and len(self.known) >= _MOST:
                del self.known[next(iter(self.known))]
            self.known[resource] = _Denial(
                asked,
                asked + refusal.retry_after,
                asked + LOOK_EVERY,
                refusal.code,
                refusal.reason,
            )
