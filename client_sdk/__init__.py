"""The Sluicegate client: take from one shared budget before calling a language model.

async with Limiter("http://limiter:8080") as limiter:
    async with limiter.acquire("openai/gpt-4o", tokens=1200, max_wait=30) as lease:
        ...
        lease.used(input_tokens=800, output_tokens=350)
"""

import importlib
import typing

from client_sdk._async.lease import Lease
from client_sdk._async.limiter import Limiter
from client_sdk._sync.lease import SyncLease
from client_sdk._sync.limiter import SyncLimiter
from client_sdk.alone import AloneFigures
from client_sdk.errors import (
    BreakerOpen,
    CallFailed,
    EmptyStream,
    InvalidRequest,
    LeaseError,
    LeaseExpired,
    LimiterClosed,
    NeverFits,
    NotAllowed,
    NotAnEventStream,
    ProtocolError,
    ProviderError,
    QueueFull,
    RateLimited,
    Refused,
    RequestConflict,
    RetryBudgetExhausted,
    ServiceFault,
    ServiceUnavailable,
    SluicegateError,
    StreamInterrupted,
    StreamStalled,
    UnknownLease,
    UnknownResource,
    WaitTimeout,
    WaitTooLong,
)
from client_sdk.figures import LocalStatistics, Statistics
from client_sdk.llm.retrying import RetryPolicy
from client_sdk.options import LimiterOptions
from client_sdk.progress import Progress
from limiter_wire import Outcome, Provenance, Usage

if typing.TYPE_CHECKING:
    from client_sdk._async.llm import LLMClient
    from client_sdk._async.llm_stream import ResponseStream
    from client_sdk._sync.llm import SyncLLMClient
    from client_sdk._sync.llm_stream import SyncResponseStream
    from client_sdk.llm.figures import ClientStatistics, FleetStatistics
    from client_sdk.llm.results import Response, Restarted
    from client_sdk.streaming import StreamChunk, StreamOutcome, StreamTimeouts

__all__ = [
    "AloneFigures",
    "BreakerOpen",
    "CallFailed",
    "ClientStatistics",
    "EmptyStream",
    "FleetStatistics",
    "InvalidRequest",
    "LLMClient",
    "Lease",
    "LeaseError",
    "LeaseExpired",
    "Limiter",
    "LimiterClosed",
    "LimiterOptions",
    "LocalStatistics",
    "NeverFits",
    "NotAllowed",
    "NotAnEventStream",
    "Outcome",
    "Progress",
    "ProtocolError",
    "Provenance",
    "ProviderError",
    "QueueFull",
    "RateLimited",
    "Refused",
    "RequestConflict",
    "Response",
    "ResponseStream",
    "Restarted",
    "RetryBudgetExhausted",
    "RetryPolicy",
    "ServiceFault",
    "ServiceUnavailable",
    "SluicegateError",
    "Statistics",
    "StreamChunk",
    "StreamInterrupted",
    "StreamOutcome",
    "StreamStalled",
    "StreamTimeouts",
    "SyncLLMClient",
    "SyncLease",
    "SyncLimiter",
    "SyncResponseStream",
    "UnknownLease",
    "UnknownResource",
    "Usage",
    "WaitTimeout",
    "WaitTooLong",
]

# Who only takes leases does not load what asks models and reads their answers.
_WHEN_NEEDED = {
    "ClientStatistics": "client_sdk.llm.figures",
    "FleetStatistics": "client_sdk.llm.figures",
    "LLMClient": "client_sdk._async.llm",
    "Response": "client_sdk.llm.results",
    "ResponseStream": "client_sdk._async.llm_stream",
    "Restarted": "client_sdk.llm.results",
    "StreamChunk": "client_sdk.streaming",
    "StreamOutcome": "client_sdk.streaming",
    "StreamTimeouts": "client_sdk.streaming",
    "SyncLLMClient": "client_sdk._sync.llm",
    "SyncResponseStream": "client_sdk._sync.llm_stream",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _WHEN_NEEDED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_WHEN_NEEDED[name]), name)
    return found
