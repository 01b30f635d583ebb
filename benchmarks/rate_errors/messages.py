"""What the benchmark and its workers say to each other: JSON, one document per line."""

from enum import StrEnum

import msgspec

from limiter_service.demo.workload import Call


class Strategy(StrEnum):
    """How calls are kept within the limits."""

    NONE = "none"
    FIXED = "fixed minute"
    NAIVE = "wrong accounting"
    NATIVE = "sluicegate"


class Due(msgspec.Struct, frozen=True):
    """One call, and its number in the whole workload."""

    number: int
    call: Call


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The share of one worker. `speed` seconds of the workload pass in a real one.

    `service` is the URL of Sluicegate, `store` the socket of a store for fixed minutes, whose
    limits are `allowed`, by meter.
    """

    worker: int
    calls: list[Due]
    provider: str
    simulator: str
    strategy: Strategy
    speed: float
    seed: int
    service: str = ""
    store: str = ""
    allowed: dict[str, int] = {}


class Start(msgspec.Struct, frozen=True):
    """The workload begins at `at` on the monotonic clock, which all processes share."""

    at: float


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker has its job and waits for the start."""


class Ending(StrEnum):
    """How a call ended."""

    SUCCEEDED = "succeeded"
    GIVEN_UP = "given up"
    FAILED = "failed"


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One call is over. `sent` is when its last attempt left, in seconds of the workload.

    `refusals` of its `attempts` were refused by the provider, those `for_tokens` for lack of
    tokens, others of requests. `problem` says why it failed.
    """

    number: int
    sent: float
    ending: Ending
    attempts: int
    refusals: int
    for_tokens: int
    first_refused: bool
    problem: str = ""


Message = Ready | Finished
