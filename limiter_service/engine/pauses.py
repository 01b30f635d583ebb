"""What the breaker last said, for the time in which its store is lost. Pure.

A circuit that was open refuses until its time is over, then lets one call a second through until
one succeeds.
"""

from collections import OrderedDict

import msgspec

from limiter_service.engine import breaking
from limiter_service.engine.breaking import Class
from limiter_service.engine.refusals import Refusal, refuse
from limiter_wire import ErrorCode, Settle

_PROBE_EVERY = 1.0
_MOST_PAUSED = 1000


class Pause(msgspec.Struct):
    """What the breaker last said of a resource: until when (loop time), and in which words."""

    until: float
    lasts: float
    code: ErrorCode
    reason: str | None
    detail: str


class Pauses:
    """Resources that the breaker refuses, as this replica last heard; the oldest go first."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Pause] = OrderedDict()

    def heard(self, refusal: Refusal, now: float) -> None:
        """Take in what the breaker has refused."""
        told = refusal.problem
        if told.resource is None or told.code is ErrorCode.RETRY_BUDGET:
            return
        lasts = told.retry_after or 0.0
        pause = Pause(now + lasts, lasts, told.code, told.reason, told.detail)
        self._known[told.resource] = pause
        self._known.move_to_end(told.resource)
        if len(self._known) > _MOST_PAUSED:
            self._known.popitem(last=False)

    def passed(self, resource: str) -> None:
        """The breaker has let a call pass."""
        if self._known:
            self._known.pop(resource, None)

    def tries(self, resource: str, now: float) -> None:
        """A call passes when the time is over: the next does a second later."""
        pause = self._known.get(resource)
        if pause is not None:
            pause.until = now + _PROBE_EVERY

    def refusal(self, resource: str, now: float) -> Refusal | None:
        """What a call is told that may not pass now."""
        pause = self._known.get(resource)
        left = 0.0 if pause is None else pause.until - now
        if pause is None or left <= 0:
            return None
        return refuse(
            pause.code,
            f"{pause.detail}; the store is lost, and this is what it last said",
            resource=resource,
            retry_after=left,
            reason=pause.reason,
            degraded=True,
        )

    def told(self, resource: str, report: Settle, now: float) -> None:
        """Take in how a call has ended."""
        pause = self._known.get(resource)
        if pause is None:
            return
        match breaking.class_of(report):
            case Class.SUCCESS:
                del self._known[resource]
            case Class.FAILURE | Class.THROTTLE:
                pause.until = now + max(pause.lasts, _PROBE_EVERY)
            case _:
                pass
