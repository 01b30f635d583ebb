"""What service and SDK say to each other: the types of the HTTP API, version 1.

Everything is a frozen msgspec Struct. Unknown fields are ignored on the wire, so that
old and new replicas understand each other during a rollout.
"""

from limiter_wire._base import MAX_AMOUNT, Wire
from limiter_wire.breaker import (
    BreakerError,
    BreakerList,
    BreakerProbes,
    BreakerRate,
    BreakerRates,
    BreakerState,
    BreakerView,
    BreakerWindow,
    Override,
    OverrideMode,
    OverrideView,
    ProviderView,
)
from limiter_wire.events import Event
from limiter_wire.leases import (
    Acquire,
    BatchAnswer,
    BatchRequest,
    BatchResult,
    Cause,
    Checked,
    Granted,
    Operation,
    Outcome,
    Renew,
    Renewed,
    Settle,
    Settled,
)
from limiter_wire.limits import (
    LimitHeld,
    LimitOverride,
    LimitState,
    LimitView,
    Meter,
    Noticed,
    Observe,
    ResourceList,
    ResourceView,
    SpentLimit,
)
from limiter_wire.problems import ErrorCode, Problem, problem, status_of, title_of
from limiter_wire.queue import QueueLine, QueueState, QueueView, Waiting
from limiter_wire.stats import Stats, WaitStats
from limiter_wire.usage import Provenance, Usage

__all__ = [
    "MAX_AMOUNT",
    "Acquire",
    "BatchAnswer",
    "BatchRequest",
    "BatchResult",
    "BreakerError",
    "BreakerList",
    "BreakerProbes",
    "BreakerRate",
    "BreakerRates",
    "BreakerState",
    "BreakerView",
    "BreakerWindow",
    "Cause",
    "Checked",
    "ErrorCode",
    "Event",
    "Granted",
    "LimitHeld",
    "LimitOverride",
    "LimitState",
    "LimitView",
    "Meter",
    "Noticed",
    "Observe",
    "Operation",
    "Outcome",
    "Override",
    "OverrideMode",
    "OverrideView",
    "Problem",
    "Provenance",
    "ProviderView",
    "QueueLine",
    "QueueState",
    "QueueView",
    "Renew",
    "Renewed",
    "ResourceList",
    "ResourceView",
    "Settle",
    "Settled",
    "SpentLimit",
    "Stats",
    "Usage",
    "WaitStats",
    "Waiting",
    "Wire",
    "problem",
    "status_of",
    "title_of",
]
