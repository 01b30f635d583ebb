"""Blocks: many calls charged at once, which their holder hands out one by one."""

from typing import Annotated, Literal

import msgspec

from limiter_wire._base import Money, Seconds, Tokens, Wire
from limiter_wire.outcomes import Cause, Outcome
from limiter_wire.usage import Usage

MOST_CALLS = 10_000
"""The most calls of one block."""

Calls = Annotated[int, msgspec.Meta(ge=0, le=MOST_CALLS)]


class Lent(Wire, frozen=True, kw_only=True):
    """The block that a lease stands for: `calls` with `tokens` in all are charged.

    What is not handed out comes back after `hold` seconds at the latest. With `plain`, what a
    call reserves of any limit is at most its input plus the most that it may answer, and so is
    what it uses: then the holder may hand out again what calls have left over.
    """

    calls: int
    tokens: int
    hold: float
    plain: bool = False


class Recalled(Wire, frozen=True, kw_only=True):
    """Blocks of `resource` are to be given back now: others wait, or its circuit is not well."""

    resource: str


class Ended(Wire, frozen=True, kw_only=True):
    """Calls of a block that have ended alike, added up.

    `tokens` is what they had reserved. Without `usage` nobody knows what they have used.
    `latencies` and `ttfts` are seconds, of those that were measured. `told` says that an earlier
    report has counted them.
    """

    outcome: Outcome = Outcome.SUCCESS
    calls: Annotated[int, msgspec.Meta(ge=1, le=MOST_CALLS)] = 1
    tokens: Tokens = 0
    usage: Usage | None = None
    cost_usd: Money | None = None
    cause: Cause | None = None
    retry_after: Seconds | None = None
    latencies: Annotated[list[Seconds], msgspec.Meta(max_length=MOST_CALLS)] = []
    ttfts: Annotated[list[Seconds], msgspec.Meta(max_length=MOST_CALLS)] = []
    told: bool = False


class BlockReport(Wire, frozen=True, kw_only=True):
    """What has become of a block: all of its calls that are over, and what it still needs.

    `number` counts the reports of one block from 1: who has taken one in ignores it when it
    comes again. `calls` and `tokens` are those of calls under way. While it is `holding`, nothing
    moves; once it has `returned` what it had left, the charge is what was used and what is under
    way; when it has `ended`, the lease is settled.
    """

    number: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    stage: Literal["holding", "returned", "ended"]
    calls: Calls = 0
    tokens: Tokens = 0
    ended: Annotated[list[Ended], msgspec.Meta(max_length=256)] = []
