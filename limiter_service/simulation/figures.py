"""What a replay comes to. Pure."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from limiter_service.config import Config
from limiter_service.engine.policy import Limit, Policies
from limiter_service.simulation.replay import PREFIX, Ended, Scene
from limiter_service.simulation.trace import Call
from limiter_wire import Meter

_MINUTE = 60.0
_GRANTED = "granted"


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """How long granted calls waited; seconds."""

    mean: float
    p50: float
    p95: float
    p99: float
    longest: float


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one limit was used: of what it allows in the time of the trace, and in the
    busiest minute of it; None for a limit whose period is longer than the trace.
    """

    limit: str
    meter: str
    amount: float
    share: float | None
    busiest_minute: float | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one tenant."""

    tenant: str
    calls: int
    granted: int
    waits: Waits


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One policy on one trace.

    `refused` counts refusals by code; those with status 429 are `too_many`. `cost_usd` is of
    calls whose price is known. `in_flight` is the most leases at once.
    """

    calls: int
    seconds: float
    granted: int
    too_many: int
    refused: dict[str, int]
    waited: int
    waits: Waits
    input_tokens: int
    output_tokens: int
    cost_usd: float
    in_flight: int
    limits: list[Use]
    tenants: list[Group]


def figures(config: Config, scene: Scene, ended: Sequence[Ended]) -> Figures:
    """The figures of a replay."""
    granted = [each for each in ended if each.outcome == _GRANTED]
    codes = Counter(each.outcome for each in ended if each.outcome != _GRANTED)
    seconds = max((call.at for call in scene.calls), default=0.0)
    calls = scene.calls
    return Figures(
        calls=len(ended),
        seconds=seconds,
        granted=len(granted),
        too_many=sum(count for code, count in codes.items() if code in _TOO_MANY),
        refused=dict(sorted(codes.items())),
        waited=sum(each.waited > scene.delay * 4 for each in granted),
        waits=waits([each.waited for each in granted]),
        input_tokens=sum(calls[each.number].input_tokens for each in granted),
        output_tokens=sum(calls[each.number].output_tokens for each in granted),
        cost_usd=sum(each.cost_usd or 0.0 for each in granted),
        in_flight=_most_at_once(granted),
        limits=_uses(_limits(config, scene), granted, seconds),
        tenants=_tenants(calls, ended),
    )


_TOO_MANY = {"rate_limited", "queue_full", "wait_too_long", "wait_timeout", "retry_budget"}


def waits(found: Sequence[float]) -> Waits:
    """Mean and quantiles."""
    ordered = sorted(found) or [0.0]

    def at(q: float) -> float:
        return ordered[math.ceil(q * len(ordered)) - 1]

    mean = sum(ordered) / len(ordered)
    return Waits(mean=mean, p50=at(0.5), p95=at(0.95), p99=at(0.99), longest=ordered[-1])


def _limits(config: Config, scene: Scene) -> dict[str, Limit]:
    """Every limit that some call of the scene meets, by name."""
    policies = Policies(config, PREFIX)
    pairs = dict.fromkeys((call.resource or scene.resource, call.tenant) for call in scene.calls)
    return {limit.name: limit for pair in pairs for limit in policies.policy(*pair).limits}


def _uses(limits: Mapping[str, Limit], granted: Sequence[Ended], seconds: float) -> list[Use]:
    found = []
    for name, limit in limits.items():
        if limit.meter is Meter.CONCURRENCY:
            continue
        # What was granted while calls came: the tail after the last one would dilute it.
        spent = [
            (each.sent, each.settled[name])
            for each in granted
            if each.sent is not None and each.sent <= seconds and name in each.settled
        ]
        amount = sum(each for _, each in spent)
        allowed = None if limit.per is None else limit.limit / limit.per
        fits = allowed is not None and limit.per is not None and limit.per <= seconds
        found.append(
            Use(
                limit=name,
                meter=str(limit.meter),
                amount=amount,
                share=amount / (allowed * seconds) if fits and allowed else None,
                busiest_minute=_busiest(spent) / (allowed * _MINUTE) if fits and allowed else None,
            )
        )
    return found


def _busiest(spent: Sequence[tuple[float, float]]) -> float:
    minutes: Counter[int] = Counter()
    for at, amount in spent:
        minutes[int(at // _MINUTE)] += amount  # type: ignore[assignment]  # a counter of amounts
    return max(minutes.values(), default=0)


def _most_at_once(granted: Sequence[Ended]) -> int:
    turns = [(each.sent, 1) for each in granted if each.sent is not None]
    turns += [(each.over, -1) for each in granted if each.over is not None]
    now = most = 0
    for _, turn in sorted(turns):
        now += turn
        most = max(most, now)
    return most


def _tenants(calls: Sequence[Call], ended: Sequence[Ended]) -> list[Group]:
    found = []
    for tenant in sorted({call.tenant for call in calls}):
        own = [each for each in ended if calls[each.number].tenant == tenant]
        granted = [each.waited for each in own if each.outcome == _GRANTED]
        group = Group(tenant=tenant, calls=len(own), granted=len(granted), waits=waits(granted))
        found.append(group)
    return found
