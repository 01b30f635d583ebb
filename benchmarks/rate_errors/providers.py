"""The five kinds of accounting: limits, charges, how to ask, and what the official SDK does.

Pure. Charges are those of the simulator's accounting modules, which state each provider's
rules and share nothing with the limiter.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from limiter_service.config import LimitConfig, ModelConfig, PoolConfig
from limiter_service.demo.workload import Call
from limiter_service.presets import limits_in_force
from limiter_service.provider_sim import Rules, SimOptions
from limiter_service.provider_sim.accounting import Sizes, accounting_of
from limiter_wire import Meter
from rate_errors.ideal import Bucket, Demand, Fixed, Sliding, Window

MAX_OUTPUT = 1024
"""The `max_tokens` of every call, unless a recorded answer is longer."""

MINUTE = 60.0

# The simulator's means: seconds to the first token, and tokens in a second.
_LATENCY, _PACE = 0.5, 80.0

_PROMPT = "Say something."


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """What an official SDK does by default when it is refused; seconds.

    A wait that the provider names is followed when it is not longer than `most_told`.
    """

    sdk: str
    retries: int
    most_told: float = 0.0
    first: float = 0.5
    most: float = 8.0
    full_jitter: bool = False

    def pause(self, attempt: int, told: float | None, chance: random.Random) -> float:
        """The pause after *attempt* (from 1) was refused."""
        if told is not None and 0 < told <= self.most_told:
            return told
        if self.full_jitter:
            return min(self.most, chance.random() * math.pow(2, attempt - 1))
        pause = min(self.most, self.first * math.pow(2, attempt - 1))
        return pause * (1 - 0.25 * chance.random())


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider is asked, where the body names the most output, and an answer its usage."""

    path: str
    body: dict[str, Any]
    most: tuple[str, ...]
    usage: str
    input: str
    output: str

    def with_most(self, tokens: int) -> dict[str, Any]:
        """The body of a call that may have so many tokens of output."""
        *outer, last = self.most
        field: dict[str, Any] = {last: tokens}
        for name in reversed(outer):
            field = {name: field}
        return self.body | field

    def used(self, answer: dict[str, Any]) -> tuple[int, int]:
        """Input and output of an answer."""
        usage = answer[self.usage]
        return usage[self.input], usage[self.output]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one account per minute, by the names of the pools file."""

    rpm: int
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None

    @property
    def tokens(self) -> dict[Meter, int]:
        """Tokens per minute, by meter."""
        figures = {
            Meter.TOKENS: self.tpm,
            Meter.INPUT_TOKENS: self.input_tpm,
            Meter.OUTPUT_TOKENS: self.output_tpm,
        }
        return {meter: figure for meter, figure in figures.items() if figure is not None}


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One provider. `name` is that of its profile.

    `per_thousand` requests go with 1,000 tokens of the `headline` limit, as in the published
    ceilings; `smoothing` is for the simulator: the seconds over which requests are enforced as
    well. `windows` are the limits for the ideal schedule, and whether their edges are known.
    """

    name: str
    title: str
    rules: Rules
    model: str
    question: Question
    retries: Retries
    per_thousand: float
    smoothing: float
    headline: Meter
    windows: Callable[[Limits, bool], list[tuple[str, Window]]]

    def limits(self, calls: Sequence[Call], load: float) -> Limits:
        """An account whose headline limit of tokens *calls* use at *load*."""
        minutes = calls[-1].at / MINUTE
        demands = self.demands(calls, SimOptions())
        charged = sum(demand.settled[self.headline] for demand in demands) / minutes
        tokens = round(charged / load)
        rpm = MINUTE * math.ceil(tokens * self.per_thousand / 1000 / MINUTE)
        if self.rules is Rules.ANTHROPIC:
            return Limits(rpm=int(rpm), input_tpm=tokens, output_tpm=tokens // 5)
        return Limits(rpm=int(rpm), tpm=tokens)

    def simulated(self, limits: Limits, *, speed: float, seed: int) -> SimOptions:
        """The provider with *limits*, compressed."""
        return SimOptions(
            rpm=limits.rpm,
            tpm=next(iter(limits.tokens.values())),
            otpm=limits.output_tpm,
            rules=self.rules,
            smoothing=self.smoothing,
            latency=_LATENCY,
            tokens_per_second=_PACE,
            speed=speed,
            seed=seed,
        )

    def per_minute(self, limits: Limits) -> dict[str, int]:
        """Limits of tokens by the provider's meter: Gemini's tokens are those of the input."""
        if len(limits.tokens) == 1:
            return {self.headline: next(iter(limits.tokens.values()))}
        return {str(meter): limit for meter, limit in limits.tokens.items()}

    def demands(self, calls: Sequence[Call], options: SimOptions) -> list[Demand]:
        """What each call is charged at first and in the end."""
        accounting = accounting_of(self.rules)
        found = []
        for call in calls:
            sizes = Sizes(
                input=call.input_tokens, max_output=most_output(call), output=call.output_tokens
            )
            settled = accounting.settled(options, sizes, call.output_tokens)
            demand = Demand(
                at=call.at,
                charges={str(m): n for m, n in accounting.charges(options, sizes).items()},
                settled={str(m): n for m, n in settled.items()},
                lasts=_LATENCY + call.output_tokens / _PACE,
            )
            found.append(demand)
        return found

    def preset(self, limits: Limits) -> list[LimitConfig]:
        """The limits in force in a pool that names this provider and gives *limits*."""
        figures = {k: v for k, v in msgspec.structs.asdict(limits).items() if v is not None}
        section = ModelConfig(**figures)
        pool = PoolConfig(provider=self.name, models={self.model: section})
        return limits_in_force(pool, "model", self.model, section)

    def naive(self, limits: Limits) -> list[LimitConfig]:
        """The usual guess: a minute's burst, input + max_tokens, and the rest comes back.

        Where the provider has two limits of tokens, their sum.
        """
        tokens = sum(limits.tokens.values())
        section = ModelConfig(rpm=limits.rpm, tpm=tokens)
        return limits_in_force(PoolConfig(models={"*": section}), "model", self.model, section)


def most_output(call: Call) -> int:
    """The `max_tokens` of a call."""
    return max(MAX_OUTPUT, call.output_tokens)


def _bucket(limit: int, seconds: float = MINUTE) -> Bucket:
    return Bucket(limit / MINUTE, max(1.0, limit * seconds / MINUTE))


def _buckets(limits: Limits, known: bool) -> list[tuple[str, Window]]:  # noqa: ARG001, FBT001
    """Everything refills continuously; requests also within a second."""
    return [
        (Meter.REQUESTS, _bucket(limits.rpm)),
        (Meter.REQUESTS, _bucket(limits.rpm, 1.0)),
        *((meter, _bucket(limit)) for meter, limit in limits.tokens.items()),
    ]


def _minutes_and_seconds(limits: Limits, known: bool) -> list[tuple[str, Window]]:  # noqa: FBT001
    """Fixed minutes, and fixed seconds of requests."""
    kind = Fixed if known else Sliding
    assert limits.tpm is not None
    return [
        (Meter.REQUESTS, kind(limits.rpm, MINUTE)),
        (Meter.REQUESTS, kind(limits.rpm // MINUTE, 1.0)),
        (Meter.TOKENS, kind(limits.tpm, MINUTE)),
    ]


def _minutes_of_input(limits: Limits, known: bool) -> list[tuple[str, Window]]:  # noqa: FBT001
    """Fixed minutes of requests and of input."""
    kind = Fixed if known else Sliding
    assert limits.tpm is not None
    return [
        (Meter.REQUESTS, kind(limits.rpm, MINUTE)),
        (Meter.INPUT_TOKENS, kind(limits.tpm, MINUTE)),
    ]


_CHAT = {"messages": [{"role": "user", "content": _PROMPT}]}
_STAINLESS = Retries(sdk="openai 3", retries=2, most_told=120.0)


def _on_azure(model: str, per_thousand: float) -> Provider:
    return Provider(
        name="azure",
        title=f"Azure OpenAI, {model}",
        rules=Rules.AZURE,
        model=model,
        question=Question(
            path=f"/azure/openai/deployments/{model}/chat/completions?api-version=2025-04-01",
            body=_CHAT,
            most=("max_tokens",),
            usage="usage",
            input="prompt_tokens",
            output="completion_tokens",
        ),
        retries=_STAINLESS,
        per_thousand=per_thousand,
        smoothing=1.0,
        headline=Meter.TOKENS,
        windows=_minutes_and_seconds,
    )


PROVIDERS: dict[str, Provider] = {
    "openai": Provider(
        name="openai",
        title="OpenAI",
        rules=Rules.OPENAI,
        model="gpt-4o",
        question=Question(
            path="/openai/v1/chat/completions",
            body={**_CHAT, "model": "gpt-4o"},
            most=("max_tokens",),
            usage="usage",
            input="prompt_tokens",
            output="completion_tokens",
        ),
        retries=_STAINLESS,
        per_thousand=2.5,
        smoothing=1.0,
        headline=Meter.TOKENS,
        windows=_buckets,
    ),
    "azure": _on_azure("gpt-4o", 6.0),
    "anthropic": Provider(
        name="anthropic",
        title="Anthropic",
        rules=Rules.ANTHROPIC,
        model="claude-sonnet-4-5",
        question=Question(
            path="/anthropic/v1/messages",
            body={**_CHAT, "model": "claude-sonnet-4-5"},
            most=("max_tokens",),
            usage="usage",
            input="input_tokens",
            output="output_tokens",
        ),
        retries=Retries(sdk="anthropic 2", retries=2, most_told=60.0),
        per_thousand=1.0,
        smoothing=1.0,
        headline=Meter.INPUT_TOKENS,
        windows=_buckets,
    ),
    "bedrock": Provider(
        name="bedrock",
        title="AWS Bedrock",
        rules=Rules.BEDROCK,
        model="anthropic.claude-sonnet-4-5-v1",
        question=Question(
            path="/bedrock/model/anthropic.claude-sonnet-4-5-v1/converse",
            body={"messages": [{"role": "user", "content": [{"text": _PROMPT}]}]},
            most=("inferenceConfig", "maxTokens"),
            usage="usage",
            input="inputTokens",
            output="outputTokens",
        ),
        retries=Retries(sdk="boto3, standard mode", retries=2, most=20.0, full_jitter=True),
        per_thousand=1.0,
        smoothing=1.0,
        headline=Meter.TOKENS,
        windows=_buckets,
    ),
    "google": Provider(
        name="google",
        title="Gemini API",
        rules=Rules.GEMINI,
        model="gemini-2.5-flash",
        question=Question(
            path="/gemini/v1beta/models/gemini-2.5-flash:generateContent",
            body={"contents": [{"role": "user", "parts": [{"text": _PROMPT}]}]},
            most=("generationConfig", "maxOutputTokens"),
            usage="usageMetadata",
            input="promptTokenCount",
            output="candidatesTokenCount",
        ),
        retries=Retries(sdk="google-genai, which does not retry", retries=0),
        per_thousand=1.0,
        smoothing=0.0,
        headline=Meter.INPUT_TOKENS,
        windows=_minutes_of_input,
    ),
    # As many requests as the second allows: hard on whoever lets them go unevenly.
    "azure-o4-mini": _on_azure("o4-mini", 1.0),
}
"""What is compared."""

ALL = tuple(name for name in PROVIDERS if name != "azure-o4-mini")
"""What is compared unless somebody asks for others."""
