"""What a trial leaves behind, and what it comes to."""

from collections.abc import Sequence

import msgspec

from limiter_service.engine.policy import Policies
from limiter_service.store.keys import request_digest
from limiter_wire import Acquire
from tests_support.trial.diary import Call
from tests_support.trial.journal import Entry

_MOST_TOLD = 20
GRANTS = frozenset({"acquire", "pass", "lend"})
BACK = frozenset({"cancel", "leave"})


class Evidence(msgspec.Struct, kw_only=True):
    """What a trial leaves behind. `kept` are the places of those entries that the store knows of,
    `spent` is what it says was taken from the budget, `left` what is still held when everything
    is over. `killed` are workers that were; `deaths` says that services were, too. A `durable`
    store keeps what it has acknowledged. Services that are `torn` apart decide without the
    store while others reach it.
    """

    entries: list[Entry]
    kept: set[int]
    calls: list[Call]
    policies: Policies
    spent: float
    left: Sequence[str] = ()
    killed: frozenset[str] = frozenset()
    durable: bool = True
    deaths: bool = False
    torn: bool = True
    usual: tuple[str, str] | None = None
    """The resource and tenant of requests that have no names in the diaries: those of blocks."""


class Found(msgspec.Struct, kw_only=True):
    """What it comes to. `repeats` are grants that the store has told again, `twice` requests that
    were debited more than once, `grouped` what was decided together with others.

    Slack: changes that were `lost`, and tokens granted by them; grants of which a caller had been
    told; `forgotten` reports on leases of which the store has lost that their callers have
    them, `outdated` those that were told to one who did not know that another is primary;
    seconds that clocks went forward; what was granted alone and never charged.
    """

    violations: list[str] = []
    times: list[float] = []
    """When each was, as far as that is known; else 0."""
    losses: list[float] = []
    """When each change was made that was lost."""
    calls: int = 0
    grants: int = 0
    settles: int = 0
    unknown: int = 0
    twice: int = 0
    repeats: int = 0
    grouped: int = 0
    lost: int = 0
    lost_tokens: float = 0.0
    lost_acknowledged: int = 0
    forgotten: int = 0
    outdated: int = 0
    leaps: float = 0.0
    alone: int = 0
    charged: int = 0
    uncharged: int = 0
    uncharged_tokens: float = 0.0
    blocks: int = 0
    handed: int = 0
    called_back: int = 0

    def wrong(self, text: str, at: float = 0.0) -> None:
        """A promise was not kept."""
        if len(self.violations) < _MOST_TOLD:
            self.violations.append(text)
            self.times.append(at)


def key_of(asked: Acquire) -> str:
    """What stands in the journal for a request."""
    return request_digest(asked.tenant, asked.request_id or "").hex()
