"""What this replica has seen of waits, for /v1/stats and for metrics."""

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from limiter_service.engine.forecast import Prediction
from limiter_wire import WaitStats

_KEPT = 1000
_MOST = 1000


class Wait(msgspec.Struct, frozen=True):
    """One wait that ended with a grant: seconds, and what was predicted at its beginning."""

    resource: str
    waited: float
    predicted: Prediction
    tenant: str = "default"


class Waits:
    """The last waits of each resource; bounded, the resource that came first goes first."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, deque[Wait]]] = {}

    def note(self, wait: Wait) -> None:
        """Take in one wait."""
        count, recent = self._seen.get(wait.resource, (0, deque[Wait](maxlen=_KEPT)))
        if wait.resource not in self._seen and len(self._seen) >= _MOST:
            del self._seen[next(iter(self._seen))]
        recent.append(wait)
        self._seen[wait.resource] = count + 1, recent

    def stats(self) -> list[WaitStats]:
        """The figures of every resource."""
        return [_stats(name, *self._seen[name]) for name in sorted(self._seen)]


def _stats(resource: str, count: int, recent: Sequence[Wait]) -> WaitStats:
    waits = sorted(wait.waited for wait in recent)
    errors = sorted(wait.waited - wait.predicted.p50 for wait in recent)
    covered = sum(wait.waited <= wait.predicted.p90 for wait in recent)
    return WaitStats(
        resource=resource,
        count=count,
        wait_p50=quantile(waits, 0.5),
        wait_p90=quantile(waits, 0.9),
        wait_max=waits[-1],
        error_p50=quantile(errors, 0.5),
        absolute_error_p50=quantile(sorted(map(abs, errors)), 0.5),
        covered=covered / len(recent),
    )


def quantile(ordered: Sequence[float], q: float) -> float:
    """The *q* quantile of values in order: the nearest one."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


Observer = Callable[[Wait], None]
