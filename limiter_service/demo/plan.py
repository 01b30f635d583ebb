"""What one run of the demo is: the workload, the provider, and the pool that matches it."""

import math
import random
from pathlib import Path

import msgspec
import yaml

from limiter_service.config import (
    Config,
    LimitConfig,
    ModelConfig,
    PoolConfig,
    QueueConfig,
)
from limiter_service.demo.workload import Call, Offered, generate, offered, read_trace, within
from limiter_service.provider_sim import InvalidOptionError, SimOptions, Window
from limiter_wire import Meter

RESOURCE = "sim/gpt-4o"

MAX_OUTPUT = 1024
"""The `max_tokens` of every call: no recorded answer is longer."""

PATIENCE = 300.0
"""How long a call waits for budget before it gives up, in seconds of the workload."""

# Where no limit is asked for: a fifth more tokens are offered than the provider allows, and
# as many requests as it allows.
_OVERLOAD = 1.2
# One-second windows refuse bursts even when the minute has room: there the limit is high
# enough for the load, and the bursts alone are the trouble.
_ROOM_FOR_SECONDS = 1.3

_DEFAULT_SPEED = {Window.BUCKET: 20.0, Window.MINUTE: 20.0, Window.SECOND: 5.0}
_DEFAULT_REAL_SECONDS = 30.0

# Two calls may be granted in one order and reach the provider in another, or come closer
# together than they were granted: by so many real seconds on a machine that is busy.
_DELIVERY = 0.05


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for; None leaves the choice to the plan."""

    trace: Path | None
    minutes: float | None
    speed: float | None
    workers: int
    rpm: int | None
    tpm: int | None
    window: Window
    seed: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that both halves of the demo have in common."""

    source: str
    calls: list[Call]
    offered: Offered
    minutes: float
    speed: float
    workers: int
    rpm: int
    tpm: int
    window: Window
    seed: int

    def provider(self) -> SimOptions:
        """The simulated provider. Raises InvalidOptionError."""
        return SimOptions(
            rpm=self.rpm, tpm=self.tpm, window=self.window, speed=self.speed, seed=self.seed
        )

    def shares(self) -> list[list[Call]]:
        """The calls of each worker: dealt out in turn."""
        return [self.calls[number :: self.workers] for number in range(self.workers)]


class PlanError(ValueError):
    """The wishes cannot be met; says which and why."""


def make_plan(wishes: Wishes) -> Plan:
    """The plan for `wishes`. Raises TraceError or PlanError."""
    speed = wishes.speed or _DEFAULT_SPEED[wishes.window]
    minutes = wishes.minutes or _DEFAULT_REAL_SECONDS * speed / 60
    chance = random.Random(wishes.seed)  # noqa: S311 - simulation
    if wishes.trace is None:
        source, calls = "a chat service", generate(minutes, chance)
    else:
        source, calls = wishes.trace.name, within(read_trace(wishes.trace, chance), minutes)
    load = offered(calls, _charge)
    plan = Plan(
        source=source,
        calls=calls,
        offered=load,
        minutes=min(minutes, round(calls[-1].at / 60, 1)),
        speed=speed,
        workers=wishes.workers,
        rpm=wishes.rpm or _rpm(load, wishes.window),
        tpm=wishes.tpm or max(load.largest, _rounded(load.tokens / _OVERLOAD)),
        window=wishes.window,
        seed=wishes.seed,
    )
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    """Raise PlanError for a provider that cannot be, or could never serve the workload."""
    largest = plan.offered.largest
    if plan.tpm < largest:
        problem = f"--tpm {plan.tpm} is less than the largest call, which counts {largest}"
        raise PlanError(problem)
    try:
        plan.provider()
    except InvalidOptionError as error:
        raise PlanError(f"--{error}") from error


def _charge(call: Call) -> int:
    """What the simulated provider counts: max(input, max_tokens), as OpenAI does."""
    return max(call.input_tokens, MAX_OUTPUT)


def _rpm(load: Offered, window: Window) -> int:
    if window is Window.SECOND:
        return 60 * max(1, round(load.requests * _ROOM_FOR_SECONDS / 60))
    return _rounded(load.requests)


def _rounded(value: float) -> int:
    """Two digits and zeros: limits are round numbers."""
    size = math.pow(10, max(0, math.floor(math.log10(max(1.0, value))) - 1))
    return max(1, int(round(value / size) * size))


def pools_file(plan: Plan) -> str:
    """The limiter's configuration for this provider, as YAML."""
    limits = [_requests_limit(plan), _tokens_limit(plan)]
    patience = f"{math.ceil(PATIENCE / plan.speed)}s"
    pool = PoolConfig(
        models={"*": ModelConfig(limits=limits)}, queue=QueueConfig(max_wait=patience)
    )
    return yaml.safe_dump(msgspec.to_builtins(Config(pools={"sim": pool})), sort_keys=False)


def _requests_limit(plan: Plan) -> LimitConfig:
    if plan.window is Window.SECOND:
        each = plan.rpm // 60
        return _limit(plan, "rps", Meter.REQUESTS, each, seconds=1, largest=1)
    return _limit(plan, "rpm", Meter.REQUESTS, plan.rpm, seconds=60, largest=1)


def _tokens_limit(plan: Plan) -> LimitConfig:
    largest = plan.offered.largest
    limit = _limit(plan, "tpm", Meter.TOKENS, plan.tpm, seconds=60, largest=largest)
    return msgspec.structs.replace(limit, reserve="max(input, max_output)", settle="none")


def _limit(
    plan: Plan, name: str, meter: Meter, amount: int, *, seconds: float, largest: int
) -> LimitConfig:
    """A limit that lets the provider see no more than `amount`, whatever delivery does.

    Against a bucket it is a bucket, smaller by what may arrive bunched. Against fixed
    windows, whose boundaries a caller cannot know, it is a sliding window: never more in
    any period, longer by what delivery may shift.
    """
    real = seconds / plan.speed
    if plan.window is Window.BUCKET:
        bunched = amount * _DELIVERY / real
        burst = max(largest, amount - bunched)
        return LimitConfig(name=name, meter=meter, limit=amount, per=_duration(real), burst=burst)
    period = _duration(real + _DELIVERY)
    return LimitConfig(name=name, meter=meter, limit=amount, per=period, window="sliding")


def _duration(seconds: float) -> str:
    return f"{seconds:.6f}s"
