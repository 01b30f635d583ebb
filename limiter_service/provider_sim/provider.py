"""The simulated provider: decides requests, sizes and paces their answers."""

import math
import random

import msgspec

from limiter_service.provider_sim.counters import Counters, SimStats
from limiter_service.provider_sim.limits import Budget, Decision, charge_of
from limiter_service.provider_sim.options import SimOptions

# Spread of one answer around the configured mean, as sigma of a lognormal.
_LATENCY_SPREAD = 0.3
_RATE_SPREAD = 0.15

# Output sizes of a chat service: half of the answers are shorter than 129 tokens.
_OUTPUT_MEDIAN = 129
_OUTPUT_SPREAD = 0.9


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a request wants, in tokens; `output_tokens` is the size that its answer must have."""

    input_tokens: int
    max_output: int | None = None
    output_tokens: int | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on a request and the answer that it gets when it was admitted.

    `first_token` and `duration` are the provider's seconds after admission.
    """

    number: int
    identity: str
    decision: Decision
    input_tokens: int
    output_tokens: int
    cut_short: bool
    first_token: float
    duration: float


class Provider:
    """One account of the simulated provider, from its start or last reset on."""

    def __init__(self, options: SimOptions) -> None:
        self._options = options
        self._random = random.Random(options.seed)  # noqa: S311 - simulation
        self._budget = Budget(rpm=options.rpm, tpm=options.tpm, window=options.window)
        self._counters = Counters()
        self._number = 0

    def answer(self, ask: Ask, now: float) -> Reply:
        """Decide a request that arrives `now`."""
        # Every request draws the same number of times, refused or not: the sizes then
        # depend on the order of requests alone, and not on what the clock did to them.
        identity = f"{self._random.getrandbits(116):029x}"
        drawn = _OUTPUT_MEDIAN * self._around_one(_OUTPUT_SPREAD)
        latency = self._options.latency * self._around_one(_LATENCY_SPREAD)
        rate = self._options.tokens_per_second * self._around_one(_RATE_SPREAD)

        wanted = max(1, round(drawn)) if ask.output_tokens is None else ask.output_tokens
        output = wanted if ask.max_output is None else min(wanted, ask.max_output)
        charged = charge_of(
            self._options.charge,
            input_tokens=ask.input_tokens,
            max_output=ask.max_output or 0,
            output=output,
        )
        decision = self._budget.admit(charged, now)
        self._counters.count(decision, charged=charged, now=now)
        self._number += 1
        return Reply(
            number=self._number,
            identity=identity,
            decision=decision,
            input_tokens=ask.input_tokens,
            output_tokens=output,
            cut_short=output < wanted,
            first_token=latency,
            duration=latency + output / rate,
        )

    def stats(self, now: float) -> SimStats:
        """What was counted since the start."""
        return self._counters.stats(self._budget, now)

    def _around_one(self, spread: float) -> float:
        # Minus half the variance: the mean of the lognormal is one, not its median.
        return math.exp(self._random.gauss(-spread * spread / 2, spread))
