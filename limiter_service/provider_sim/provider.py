"""The simulated provider: decides requests, sizes and paces their answers."""

import math
import random
from collections.abc import Mapping, Sequence

import msgspec

from limiter_service.provider_sim.accounting import Sizes, accounting_of
from limiter_service.provider_sim.content import Answer, Tool, Words, compose
from limiter_service.provider_sim.counters import Counters, SimStats
from limiter_service.provider_sim.limits import Budget, Charges, Decision, Meter, Quotas, Refused
from limiter_service.provider_sim.options import Rules, Scope, SimOptions

# Spread of one answer around the configured mean, as sigma of a lognormal.
_LATENCY_SPREAD = 0.3
_RATE_SPREAD = 0.15

# Output sizes of a chat service: half of the answers are shorter than 129 tokens.
_OUTPUT_MEDIAN = 129
_OUTPUT_SPREAD = 0.9

_COUNTS_FAILURES = frozenset({Rules.PLAIN, Rules.OPENAI})

# These generate, and count, to the end when a caller has hung up.
_DEAF = frozenset({Rules.BEDROCK, Rules.GEMINI, Rules.MISTRAL})


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a request wants, in tokens.

    `output_tokens` is the size that the text of its answer must have; without, chance
    decides, and an answer that calls tools has no text.
    """

    input_tokens: int
    cache_read: int = 0
    cache_write: int = 0
    max_output: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int = 0
    calls: Sequence[Tool] = ()
    words: Words = Words.PLAIN
    prefill: str = ""
    model: str = ""
    key: str = ""
    rules: Rules = Rules.PLAIN


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on a request and the answer that it gets when it was admitted.

    `first_token` and `duration` are the provider's seconds after admission.
    """

    number: int
    identity: str
    decision: Decision
    rules: Rules
    sizes: Sizes
    answer: Answer
    first_token: float
    duration: float

    @property
    def input_tokens(self) -> int:
        """The prompt."""
        return self.sizes.input

    @property
    def output_tokens(self) -> int:
        """The whole answer."""
        return self.answer.tokens

    @property
    def cut_short(self) -> bool:
        """Whether the allowed output ended before the answer did."""
        return self.answer.cut_short


class Call:
    """An admitted request that runs: what it was charged so far."""

    def __init__(self, reply: Reply, budget: Budget, charged: Charges) -> None:
        self.reply = reply
        self.budget = budget
        self.charged = charged
        self.produced = 0


class Provider:
    """One simulated provider, from its start or last reset on."""

    def __init__(self, options: SimOptions) -> None:
        self._options = options
        self._random = random.Random(options.seed)  # noqa: S311 - simulation
        self._budgets: dict[tuple[Rules, str], Budget] = {}
        self._counters = Counters()
        self._number = 0

    def answer(self, ask: Ask, now: float) -> Reply:
        """Decide a request that arrives `now`."""
        identity, drawn, latency, rate = self._draw()
        chance = 0 if ask.calls else max(1, round(drawn))
        answer = compose(
            text=chance if ask.output_tokens is None else ask.output_tokens,
            reasoning=ask.reasoning_tokens,
            calls=ask.calls,
            words=ask.words,
            prefill=ask.prefill,
            most=ask.max_output,
        )
        sizes = Sizes(
            input=ask.input_tokens,
            cache_read=ask.cache_read,
            cache_write=ask.cache_write,
            max_output=ask.max_output,
            output=answer.tokens,
        )
        charges = self._charges(ask.rules, sizes)
        decision = self._budget(ask.rules, ask.model, ask.key).admit(charges, now)
        self._counters.count(decision, charged=_tokens(charges), now=now)
        self._number += 1
        return Reply(
            number=self._number,
            identity=identity,
            decision=decision,
            rules=ask.rules,
            sizes=sizes,
            answer=answer,
            first_token=latency,
            duration=latency + answer.tokens / rate,
        )

    def fail(self, ask: Ask, now: float) -> None:
        """Count a request that gets an error, where the provider counts those as well."""
        self.skip()
        if ask.rules in _COUNTS_FAILURES:
            sizes = Sizes(input=ask.input_tokens, max_output=ask.max_output)
            charges = accounting_of(ask.rules).charges(self._options, sizes)
            self._budget(ask.rules, ask.model, ask.key).adjust(charges, now)

    def skip(self) -> None:
        """Draw what a request draws: those after it get the sizes that they would have had."""
        self._draw()
        self._number += 1

    def begin(self, reply: Reply, ask: Ask) -> Call:
        """The call that an admitted request has become."""
        budget = self._budget(ask.rules, ask.model, ask.key)
        return Call(reply, budget, self._charges(ask.rules, reply.sizes))

    def generated(self, call: Call, produced: int, now: float) -> None:
        """Count the output that has left so far, where the provider counts it at once."""
        call.produced = produced
        if accounting_of(call.reply.rules).LIVE:
            self._recount(call, now)

    def end(self, call: Call, now: float, *, hung_up: bool = False) -> None:
        """Settle a call for what it produced, and free its place.

        Some providers go on generating, and counting, when the caller has hung up.
        """
        if hung_up and call.reply.rules in _DEAF:
            call.produced = call.reply.answer.tokens
        self._recount(call, now)
        call.budget.adjust({Meter.CONCURRENCY: -1}, now)

    def _recount(self, call: Call, now: float) -> None:
        reply = call.reply
        accounting = accounting_of(reply.rules)
        settled = accounting.settled(self._options, reply.sizes, call.produced)
        call.budget.adjust(_difference(settled, call.charged), now)
        call.charged = settled

    def quotas(self, ask: Ask, now: float) -> Quotas:
        """The limits that a request meets, as they stand."""
        return self._budget(ask.rules, ask.model, ask.key).quotas(now)

    def refusal(self, ask: Ask, retry_after: float, now: float) -> Refused:
        """What a refusal says that no limit has asked for."""
        budget = self._budget(ask.rules, ask.model, ask.key)
        for meter in (Meter.REQUESTS, Meter.TOKENS):
            if found := budget.refusal(meter, retry_after, now):
                return found
        return Refused(
            meter=Meter.REQUESTS,
            limit=self._options.rpm,
            used=self._options.rpm,
            requested=1,
            retry_after=retry_after,
            quotas=budget.quotas(now),
        )

    def stats(self, now: float) -> SimStats:
        """What was counted since the start."""
        if not self._budgets:
            self._budget(Rules.PLAIN, "", "")
        return self._counters.stats(list(self._budgets.values()), now)

    def _budget(self, rules: Rules, model: str, key: str) -> Budget:
        scope = {Scope.ACCOUNT: "", Scope.MODEL: model, Scope.KEY: key}[self._options.scope]
        budget = self._budgets.get((rules, scope))
        if budget is None:
            budget = Budget(accounting_of(rules).limits(self._options))
            self._budgets[rules, scope] = budget
        return budget

    def _charges(self, rules: Rules, sizes: Sizes) -> Charges:
        return {
            Meter.CONCURRENCY: 1,
            **accounting_of(rules).charges(self._options, sizes),
        }

    def _draw(self) -> tuple[str, float, float, float]:
        # Every request draws the same number of times, refused or not: the sizes then
        # depend on the order of requests alone, and not on what the clock did to them.
        return (
            f"{self._random.getrandbits(116):029x}",
            _OUTPUT_MEDIAN * self._around_one(_OUTPUT_SPREAD),
            self._options.latency * self._around_one(_LATENCY_SPREAD),
            self._options.tokens_per_second * self._around_one(_RATE_SPREAD),
        )

    def _around_one(self, spread: float) -> float:
        # Minus half the variance: the mean of the lognormal is one, not its median.
        return math.exp(self._random.gauss(-spread * spread / 2, spread))


def _tokens(charges: Mapping[Meter, int]) -> int:
    counted = (Meter.TOKENS, Meter.INPUT, Meter.OUTPUT)
    return sum(charges.get(meter, 0) for meter in counted)


def _difference(settled: Charges, charged: Charges) -> Charges:
    return {meter: amount - charged.get(meter, 0) for meter, amount in settled.items()}
