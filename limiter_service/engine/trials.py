"""Two policies on the same traffic: what enforced limits did, and shadows would have done. Pure.

The trial policy is the enforced one with each shadow limit in the place of the enforced
limits on the same meter in the same scope, or beside the others where there are none. Both
count what was let pass: a request that was refused is charged to neither.
"""

from collections.abc import Iterable, Sequence

import msgspec

from limiter_service.engine.levels import Level, fits
from limiter_service.engine.names import REST, Names
from limiter_service.engine.policy import Limit, Policy
from limiter_wire import TrialStats


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What the trial policy says of one request; `limits` are the shadows that decide it:
    those that refuse, or else those in whose place an enforced limit refuses.
    """

    would_grant: bool
    limits: tuple[Limit, ...]


def judge(policy: Policy, amounts: Sequence[float], levels: Sequence[Level]) -> Trial | None:
    """The trial's verdict at these levels; None without shadow limits."""
    if not policy.shadows:
        return None
    short = [
        limit
        for limit, asked, level in zip(policy.limits, amounts, levels, strict=True)
        if not fits(limit, level, asked)
    ]
    refusing = tuple(limit for limit in short if limit.shadow)
    enforced = [limit for limit in short if not limit.shadow]
    kept = [limit for limit in enforced if not _replacing(policy, limit)]
    replacing = {shadow.id: shadow for limit in enforced for shadow in _replacing(policy, limit)}
    return Trial(
        would_grant=not refusing and not kept, limits=refusing or tuple(replacing.values())
    )


def _replacing(policy: Policy, limit: Limit) -> list[Limit]:
    return [
        shadow
        for shadow in policy.shadows
        if (shadow.scope, shadow.meter) == (limit.scope, limit.meter)
    ]


class Counts(msgspec.Struct, kw_only=True):
    """Requests of one tenant that one shadow limit has seen."""

    seen: int = 0
    would_refuse: int = 0
    would_grant: int = 0


class Trials:
    """Where the two policies differ, by shadow limit and tenant, in this replica; bounded."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self._name = Names((REST, REST)).of

    def granted(self, policy: Policy, refused: Iterable[str]) -> list[str]:
        """Take in a grant; *refused* are the names of shadows that had no room. They are
        returned as they are counted.
        """
        names = set(refused)
        for limit in policy.shadows:
            counts = self._of(policy, limit)
            counts.seen += 1
            counts.would_refuse += limit.name in names
        return [f"{policy.pool}/{name}" for name in names]

    def denied(self, policy: Policy, trial: Trial | None) -> list[str]:
        """Take in a refusal; the names of shadows that would have let it pass."""
        if trial is None:
            return []
        for limit in policy.shadows:
            self._of(policy, limit).seen += 1
        if not trial.would_grant:
            return []
        for limit in trial.limits:
            self._of(policy, limit).would_grant += 1
        return [f"{policy.pool}/{limit.name}" for limit in trial.limits]

    def stats(self) -> list[TrialStats]:
        """The differences of every shadow limit and tenant."""
        return [
            TrialStats(
                limit=limit,
                tenant=tenant,
                seen=counts.seen,
                would_refuse=counts.would_refuse,
                would_grant=counts.would_grant,
            )
            for (limit, tenant), counts in sorted(self._counts.items())
        ]

    def _of(self, policy: Policy, limit: Limit) -> Counts:
        name = self._name((f"{policy.pool}/{limit.name}", policy.tenant))
        return self._counts.setdefault(name, Counts())
