"""What the demo and its worker processes say to each other: JSON, one document per line."""

from enum import StrEnum

import msgspec

from limiter_service.demo.workload import Call


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The share of one worker. `limiter` is None for callers on their own.

    `patience` is how long a call waits for budget, in seconds of the workload; `speed` is
    how many of those pass in a real second.
    """

    worker: int
    calls: list[Call]
    provider: str
    limiter: str | None
    resource: str
    max_output: int
    patience: float
    speed: float
    seed: int


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The workload begins at `at` on the monotonic clock, which all processes share."""

    at: float


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker has its job and waits for the start."""


class Ending(StrEnum):
    """How a call ended."""

    SUCCEEDED = "succeeded"
    GIVEN_UP = "given_up"
    FAILED = "failed"


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One call is over, `at` seconds after the start.

    `waited` is from when the call was due until its last attempt; both are seconds of
    the workload. `problem` says why it failed.
    """

    at: float
    ending: Ending
    attempts: int
    refusals: int
    waited: float
    problem: str = ""


Message = Ready | Finished
