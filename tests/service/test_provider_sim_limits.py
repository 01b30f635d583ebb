"""Limits as each provider enforces them: charges, windows, refunds, headers, bodies."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests_support.spoken import PROVIDERS, Provider

from limiter_service.provider_sim import (
    InvalidOptionError,
    Rules,
    Scope,
    SimOptions,
    create_sim_app,
)
from limiter_service.provider_sim.accounting import Sizes, accounting_of
from limiter_service.provider_sim.levels import Bucket, FixedWindow, Growth, Slots
from limiter_service.provider_sim.limits import Admitted, Budget, Meter
from limiter_service.provider_sim.provider import Ask
from limiter_service.provider_sim.provider import Provider as Core
from limiter_wire import Outcome
from limiter_wire.providers import classify

OPTIONS = SimOptions(rpm=60, tpm=6000, latency=0, tokens_per_second=1e9)
START = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now

    def date(self) -> datetime:
        return START + timedelta(seconds=self.now - 500.0)


class Caller:
    """Calls one provider, whose clock is in the caller's hand."""

    def __init__(self, name: str, options: SimOptions = OPTIONS) -> None:
        self.provider: Provider = next(one for one in PROVIDERS if one.name == name)
        self.clock = Clock()
        app = create_sim_app(options, self.clock, self.clock.date)
        transport = httpx.ASGITransport(app)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://sim")

    async def __call__(
        self,
        *,
        given: int = 1,
        output: int = 1,
        limit: int | None = None,
        stream: bool = False,
        **headers: str,
    ) -> httpx.Response:
        """A request of `given` tokens whose answer has `output`, of `limit` at most."""
        body = self.provider.body(stream)
        if limit is not None:
            body |= _LIMITS.get(self.provider.name, lambda most: {"max_tokens": most})(limit)
        sizes = {"x-sim-input-tokens": str(given), "x-sim-output-tokens": str(output)}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path = self.provider.stream_path if stream else self.provider.path
        return await self._http.post(path, json=body, headers=sizes | named)

    async def get(self, path: str) -> Any:
        return (await self._http.get(path)).json()


_LIMITS: dict[str, Any] = {
    "gemini": lambda most: {"generationConfig": {"maxOutputTokens": most}},
    "bedrock": lambda most: {"inferenceConfig": {"maxTokens": most}},
}


class TestOpenAI:
    """max(input, max_tokens) in buckets that refill with every moment; nothing comes back."""

    async def test_refills_within_the_second(self) -> None:
        """A hundredth of a second earns a hundredth of a second's tokens."""
        call = Caller("openai-chat")
        await call(limit=6000)
        call.clock.now += 0.5
        refused = await call(limit=51)
        assert refused.status_code == 429
        assert refused.headers["retry-after-ms"] == "10"
        assert "Limit 6000, Used 5950, Requested 51." in refused.json()["error"]["message"]
        call.clock.now += 0.01
        assert (await call(limit=51)).status_code == 200

    async def test_nothing_comes_back(self) -> None:
        """The charge is what was allowed, however short the answer was."""
        call = Caller("openai-chat")
        answer = await call(given=100, output=2, limit=4000)
        assert answer.headers["x-ratelimit-remaining-tokens"] == "2000"
        again = await call(given=2000, output=1)
        assert again.headers["x-ratelimit-remaining-tokens"] == "0"

    async def test_smoothed_requests(self) -> None:
        """With smoothing a burst is refused while the headers promise requests."""
        call = Caller("openai-chat", replace(OPTIONS, rpm=600, smoothing=1.0))
        statuses = [(await call()).status_code for _ in range(11)]
        assert statuses == [200] * 10 + [429]
        refused = await call()
        assert refused.headers["x-ratelimit-remaining-requests"] == "590"
        assert refused.headers["retry-after-ms"] == "100"

    async def test_failures_count(self) -> None:
        """A request that got an error was a request."""
        call = Caller("openai-chat", replace(OPTIONS, rpm=2))
        assert (await call(x_sim_fault="server-error")).status_code == 500
        assert (await call()).status_code == 200
        assert (await call()).status_code == 429

    async def test_requests_per_day(self) -> None:
        """A day that is spent is named in the refusal, with the hours that are left of it."""
        call = Caller("openai-chat", replace(OPTIONS, rpd=1))
        await call()
        error = (await call()).json()["error"]
        assert "requests per day (RPD): Limit 1, Used 1" in error["message"]
        assert "try again in 24h0m0s" in error["message"]

    async def test_concurrency(self) -> None:
        """Calls that run hold their places until they end."""
        options = replace(OPTIONS, concurrency=2)
        core = Core(options)
        ask = Ask(input_tokens=1)
        calls = [core.begin(core.answer(ask, 0.0), ask) for _ in range(2)]
        third = core.answer(ask, 0.0)
        assert not isinstance(third.decision, Admitted)
        core.end(calls[0], 1.0)
        assert isinstance(core.answer(ask, 1.0).decision, Admitted)


class TestAzure:
    """prompt + max_tokens in fixed minutes; requests in seconds besides."""

    async def test_charge(self) -> None:
        """Prompt and limit are counted together, and stay counted."""
        call = Caller("azure-chat", replace(OPTIONS, rpm=600))
        answer = await call(given=1000, output=1, limit=4000)
        assert answer.headers["x-ratelimit-remaining-tokens"] == "1000"
        assert answer.headers["x-ratelimit-reset-tokens"] == "60"

    async def test_minutes(self) -> None:
        """A minute that is spent stays so until the next one begins."""
        call = Caller("azure-chat", replace(OPTIONS, rpm=600))
        await call(given=6000)
        call.clock.now += 59.0
        refused = await call()
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        error = refused.json()["error"]
        assert error["code"] == "429"
        assert "exceeded token rate limit" in error["message"]
        assert error["message"].endswith("Please retry after 1 seconds.")
        call.clock.now += 1.0
        assert (await call(given=6000)).status_code == 200

    async def test_seconds(self) -> None:
        """The eleventh request of a second is refused, and the next second takes it."""
        call = Caller("azure-chat", replace(OPTIONS, rpm=600))
        statuses = [(await call()).status_code for _ in range(11)]
        assert statuses == [200] * 10 + [429]
        call.clock.now += 0.4
        refused = await call()
        assert refused.headers["retry-after-ms"] == "600"
        assert refused.headers["x-ratelimit-remaining-requests"] == "590"
        assert "exceeded call rate limit" in refused.json()["error"]["message"]
        call.clock.now += 0.6
        assert (await call()).status_code == 200

    async def test_windows_of_ten_seconds(self) -> None:
        """The windows may be longer, and are never too short for one request."""
        ten = Caller("azure-chat", replace(OPTIONS, rpm=60, smoothing=10.0))
        assert [(await ten()).status_code for _ in range(11)] == [200] * 10 + [429]
        slow = Caller("azure-chat", replace(OPTIONS, rpm=6))
        assert [(await slow()).status_code for _ in range(2)] == [200, 429]
        slow.clock.now += 10.0
        assert (await slow()).status_code == 200


class TestAnthropic:
    """Input without cache reads at the start, output as it comes, requests smoothed."""

    LIMITS = replace(OPTIONS, rpm=600, itpm=6000, otpm=600)

    async def test_cache_reads_are_free(self) -> None:
        """What is read from the cache is not counted, and what is written to it is."""
        call = Caller("anthropic", self.LIMITS)
        answer = await call(given=6000, x_sim_cache_read_tokens="4000")
        prefix = "anthropic-ratelimit-input-tokens"
        assert answer.headers[f"{prefix}-limit"] == "6000"
        assert answer.headers[f"{prefix}-remaining"] == "4000"
        written = await call(given=4000, x_sim_cache_write_tokens="4000")
        assert written.headers[f"{prefix}-remaining"] == "0"

    async def test_max_tokens_are_not_counted(self) -> None:
        """A limit far beyond the output tokens per minute costs nothing."""
        call = Caller("anthropic", self.LIMITS)
        assert (await call(output=10, limit=100_000)).status_code == 200
        assert (await call(output=10, limit=100_000)).status_code == 200

    async def test_output_overdraws(self) -> None:
        """An answer longer than what was left comes whole; the next call waits for the debt."""
        call = Caller("anthropic", self.LIMITS)
        assert (await call(output=900)).status_code == 200
        refused = await call()
        assert refused.status_code == 429
        error = refused.json()
        assert error["error"]["type"] == "rate_limit_error"
        assert "600 output tokens per minute" in error["error"]["message"]
        assert refused.headers["retry-after"] == "31"  # 300 in debt, 10 come in a second
        assert refused.headers["anthropic-ratelimit-output-tokens-remaining"] == "0"
        call.clock.now += 30.1
        assert (await call()).status_code == 200

    async def test_output_counts_while_it_is_generated(self) -> None:
        """Half of an answer is charged when half of it has come."""
        core = Core(self.LIMITS)
        ask = Ask(input_tokens=1, output_tokens=500, rules=Rules.ANTHROPIC)
        call = core.begin(core.answer(ask, 0.0), ask)
        assert core.quotas(ask, 0.0)[Meter.OUTPUT].remaining == 600
        core.generated(call, 250, 0.0)
        assert core.quotas(ask, 0.0)[Meter.OUTPUT].remaining == 350
        core.generated(call, 500, 0.0)
        core.end(call, 0.0)
        assert core.quotas(ask, 0.0)[Meter.OUTPUT].remaining == 100

    async def test_headers(self) -> None:
        """Remaining tokens are rounded, resets are dates, `tokens` is the tightest of them."""
        call = Caller("anthropic", replace(OPTIONS, rpm=600, itpm=60_000, otpm=6000))
        answer = await call(given=20_400)
        found = {k: v for k, v in answer.headers.items() if k.startswith("anthropic")}
        assert found == {
            "anthropic-ratelimit-requests-limit": "600",
            "anthropic-ratelimit-requests-remaining": "599",
            "anthropic-ratelimit-requests-reset": "2030-01-01T00:00:01Z",
            "anthropic-ratelimit-input-tokens-limit": "60000",
            "anthropic-ratelimit-input-tokens-remaining": "40000",
            "anthropic-ratelimit-input-tokens-reset": "2030-01-01T00:00:21Z",
            "anthropic-ratelimit-output-tokens-limit": "6000",
            "anthropic-ratelimit-output-tokens-remaining": "6000",
            "anthropic-ratelimit-output-tokens-reset": "2030-01-01T00:00:00Z",
            "anthropic-ratelimit-tokens-limit": "60000",
            "anthropic-ratelimit-tokens-remaining": "40000",
            "anthropic-ratelimit-tokens-reset": "2030-01-01T00:00:21Z",
        }

    async def test_requests_are_smoothed(self) -> None:
        """Sixty requests per minute are one per second."""
        call = Caller("anthropic", replace(OPTIONS, rpm=60))
        assert [(await call()).status_code for _ in range(2)] == [200, 429]
        call.clock.now += 1.0
        assert (await call()).status_code == 200


class TestBedrock:
    """All that is allowed is reserved; at the end output counts five times."""

    LIMITS = replace(OPTIONS, rpm=600, tpm=40_000)

    async def test_reserve_and_settle(self) -> None:
        """The reservation decides on the next call; afterwards only what was used counts."""
        core = Core(self.LIMITS)
        ask = Ask(input_tokens=4000, max_output=32_000, output_tokens=1000, rules=Rules.BEDROCK)
        call = core.begin(core.answer(ask, 0.0), ask)
        assert core.quotas(ask, 0.0)[Meter.TOKENS].remaining == 4000
        assert not isinstance(core.answer(ask, 0.0).decision, Admitted)
        core.generated(call, 1000, 0.0)
        core.end(call, 0.0)
        assert core.quotas(ask, 0.0)[Meter.TOKENS].remaining == 40_000 - 9000

    async def test_burndown_may_cost_more(self) -> None:
        """A long answer costs more than what was reserved."""
        call = Caller("bedrock", self.LIMITS)
        assert (await call(given=1000, output=4000, limit=4000)).status_code == 200
        stats = await call.get("/sim/stats")
        assert stats["tokens_granted"] == 5000
        refused = await call(given=20_000, output=1, limit=1)
        assert refused.status_code == 429
        assert refused.headers["x-amzn-errortype"] == "ThrottlingException"
        assert refused.json() == {"message": "Too many tokens, please wait before trying again."}
        assert "retry-after" not in refused.headers
        call.clock.now += 2.0
        assert (await call(given=20_000, output=1, limit=1)).status_code == 200

    async def test_unlimited_output_reserves_the_most(self) -> None:
        """Without `maxTokens` the model's maximum is reserved."""
        options = replace(self.LIMITS, most_output=39_000)
        accounting = accounting_of(Rules.BEDROCK)
        charges = accounting.charges(options, Sizes(input=500))
        assert charges[Meter.TOKENS] == 39_500
        call = Caller("bedrock", options)
        assert (await call(given=1001)).status_code == 429
        assert (await call(given=1000)).status_code == 200

    async def test_cache_reads_come_back(self) -> None:
        """What was read from the cache is reserved, and not counted in the end."""
        accounting = accounting_of(Rules.BEDROCK)
        sizes = Sizes(input=1000, cache_read=800, max_output=100)
        assert accounting.charges(self.LIMITS, sizes)[Meter.TOKENS] == 1100
        assert accounting.settled(self.LIMITS, sizes, 10)[Meter.TOKENS] == 250

    async def test_goes_on_when_the_caller_hangs_up(self) -> None:
        """Output is generated, and counted, to its end."""
        core = Core(self.LIMITS)
        ask = Ask(input_tokens=1000, max_output=2000, output_tokens=1000, rules=Rules.BEDROCK)
        call = core.begin(core.answer(ask, 0.0), ask)
        core.generated(call, 10, 0.0)
        core.end(call, 0.0, hung_up=True)
        assert core.quotas(ask, 0.0)[Meter.TOKENS].remaining == 40_000 - 6000


class TestGemini:
    """Input alone, in fixed minutes; the body tells the quota and the wait."""

    async def test_output_is_free(self) -> None:
        """Neither the limit nor the length of an answer is counted."""
        call = Caller("gemini")
        for _ in range(2):
            answer = await call(given=3000, output=5000, limit=60_000)
            assert answer.status_code == 200
        assert not any("ratelimit" in name for name in answer.headers)

    async def test_refusal(self) -> None:
        """The quota that was met, and when it opens, stand in the details."""
        call = Caller("gemini")
        await call(given=6000)
        call.clock.now += 25.66
        refused = await call()
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert error["status"] == "RESOURCE_EXHAUSTED"
        failure, retry = error["details"]
        [violation] = failure["violations"]
        assert violation["quotaId"] == "GenerateContentInputTokensPerMinutePerProjectPerModel"
        assert violation["quotaValue"] == "6000"
        assert retry["retryDelay"] == "34.34s"
        assert "retry-after" not in refused.headers
        call.clock.now += 34.34
        assert (await call()).status_code == 200

    async def test_day(self) -> None:
        """A spent day has a quota of its own."""
        call = Caller("gemini", replace(OPTIONS, rpd=2))
        for _ in range(2):
            await call()
        failure, retry = (await call()).json()["error"]["details"]
        [violation] = failure["violations"]
        assert violation["quotaId"] == "GenerateRequestsPerDayPerProjectPerModel"
        assert float(retry["retryDelay"].removesuffix("s")) == pytest.approx(86_400)


class TestOthers:
    """The accounting of the remaining dialects, in short."""

    async def test_whole_seconds_are_compressed_too(self) -> None:
        """At speed 20 a wait that is told as a whole second lasts a twentieth of one."""
        call = Caller("mistral", replace(OPTIONS, speed=20))
        await call(given=1000, limit=2000)
        refused = await call()
        assert refused.headers["retry-after"] == "0.05"
        call.clock.now += 0.05
        assert (await call()).status_code == 200

    async def test_mistral(self) -> None:
        """Requests by the second, prompt and limit by the minute, in headers of its own."""
        call = Caller("mistral")
        answer = await call(given=1000, limit=2000)
        assert answer.headers["x-ratelimitbysize-remaining-minute"] == "3000"
        refused = await call()
        assert refused.status_code == 429
        assert refused.json()["code"] == "1300"
        assert refused.headers["retry-after"] == "1"

    async def test_cohere(self) -> None:
        """Requests by the minute, and a reset in seconds of the epoch."""
        call = Caller("cohere", replace(OPTIONS, rpm=1))
        answer = await call(given=1_000_000)
        assert answer.headers["x-ratelimit-remaining"] == "0"
        assert answer.headers["x-ratelimit-reset"] == str(int(START.timestamp()) + 60)
        assert (await call()).status_code == 429

    async def test_ollama(self) -> None:
        """No limits."""
        call = Caller("ollama", replace(OPTIONS, rpm=1, tpm=1))
        assert [(await call(given=100)).status_code for _ in range(3)] == [200] * 3

    async def test_rules_for_every_route(self) -> None:
        """One provider's accounting may apply to another one's dialect."""
        call = Caller("openai-chat", replace(OPTIONS, rules=Rules.GEMINI))
        await call(given=6000, limit=100_000)
        assert (await call()).status_code == 429

    @pytest.mark.parametrize(
        ("scope", "another", "status"),
        [
            (Scope.ACCOUNT, {"x_api_key": "b"}, 429),
            (Scope.KEY, {"x_api_key": "b"}, 200),
            (Scope.KEY, {"x_api_key": "a"}, 429),
            (Scope.MODEL, {"x_api_key": "b"}, 429),
        ],
    )
    async def test_scopes(self, scope: Scope, another: dict[str, str], status: int) -> None:
        """Limits are shared by everybody, or by those with one key or model."""
        call = Caller("openai-chat", replace(OPTIONS, rpm=1, scope=scope))
        assert (await call(x_api_key="a")).status_code == 200
        assert (await call(**another)).status_code == status

    async def test_openai_and_anthropic_are_two_accounts(self) -> None:
        """What one provider has granted is no business of another."""
        core = Core(replace(OPTIONS, rpm=1))
        for rules in (Rules.PLAIN, Rules.ANTHROPIC):
            ask = Ask(input_tokens=1, rules=rules)
            assert isinstance(core.answer(ask, 0.0).decision, Admitted)
            assert not isinstance(core.answer(ask, 0.0).decision, Admitted)


class TestLevels:
    """What holds of any limit."""

    @given(
        amounts=st.lists(st.integers(1, 50), min_size=1, max_size=60),
        gaps=st.lists(st.floats(0, 20), min_size=60, max_size=60),
        fixed=st.booleans(),
    )
    def test_what_is_given_back_was_never_taken(
        self, amounts: list[int], gaps: list[float], fixed: bool
    ) -> None:
        """Taking and giving back at once changes nothing, and nothing exceeds the limit."""
        level = FixedWindow(100, 60.0) if fixed else Bucket(100)
        now = 0.0
        for amount, gap in zip(amounts, gaps, strict=False):
            now += gap
            before = level.remaining(now)
            level.take(amount, now)
            level.take(-amount, now)
            assert level.remaining(now) == pytest.approx(before)
            level.take(amount, now)
            assert level.remaining(now) <= 100

    def test_refund_of_the_last_minute(self) -> None:
        """Tokens that come back after their minute has ended add nothing to the next one."""
        level = FixedWindow(100, 60.0)
        level.take(80, 59.0)
        level.take(-80, 61.0)
        assert level.remaining(61.0) == 100

    def test_a_debt_is_paid_before_anything_is_granted(self) -> None:
        """A bucket that was overdrawn by a minute's worth grants after that minute."""
        level = Bucket(60)
        level.take(120, 0.0)
        assert level.remaining(0.0) == -60
        assert level.wait(1, 0.0) == pytest.approx(61.0)

    def test_slots(self) -> None:
        """Places come back one by one, and no more than there are."""
        slots = Slots(2)
        slots.take(2, 0.0)
        assert slots.wait(1, 0.0) > 0
        slots.take(-1, 0.0)
        assert slots.wait(1, 0.0) == 0
        slots.take(-5, 0.0)
        assert slots.remaining(0.0) == 2

    def test_growth(self) -> None:
        """Twice as much in each span as in the one before, wherever the span begins."""
        growth = Growth(10, 2.0, 5.0)
        now, waves = 0.0, []
        for _ in range(4):
            taken = 0
            while growth.wait(1, now) == 0:
                growth.take(1, now)
                taken += 1
            waves.append(taken)
            assert growth.wait(1, now) == pytest.approx(5.0)
            now += 5.0
        assert waves == [10, 20, 40, 80]
        assert growth.remaining(now + 4.0) == 160
        assert growth.remaining(now + 5.0) == 10

    def test_what_is_larger_than_growth_allows_passes_alone(self) -> None:
        """Otherwise it never would."""
        growth = Growth(10, 2.0, 5.0)
        growth.take(3, 1.0)
        assert growth.wait(50, 2.0) == pytest.approx(4.0)
        assert growth.wait(50, 6.0) == 0
        growth.take(50, 6.0)
        assert growth.wait(1, 6.0) == pytest.approx(5.0)
        assert growth.reset_after(6.0) == 10

    def test_all_or_nothing(self) -> None:
        """A refusal by the last limit leaves the first one alone."""
        limits = accounting_of(Rules.ANTHROPIC).limits(replace(OPTIONS, otpm=1))
        budget = Budget(limits)
        budget.adjust({Meter.OUTPUT: 5}, 0.0)
        charges = {Meter.REQUESTS: 1, Meter.INPUT: 100, Meter.OUTPUT: 0}
        assert not isinstance(budget.admit(charges, 0.0), Admitted)
        assert budget.quotas(0.0)[Meter.INPUT].remaining == 6000


class TestAcceleration:
    """Requests under every limit that grow too fast are refused, in the provider's words."""

    FAST = replace(OPTIONS, rpm=6000, tpm=6_000_000, acceleration=2.0, acceleration_start=3)

    @pytest.mark.parametrize(
        ("name", "code"), [("openai-chat", "slow_down"), ("anthropic", "ramp_limit_exceeded")]
    )
    async def test_a_refusal_is_known_as_what_it_is(self, name: str, code: str) -> None:
        """Headers promise room, and the kind of failure is that of a ramp."""
        call = Caller(name, self.FAST)
        answers = [await call() for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        refusal = answers[-1]
        assert code in refusal.text
        failure = classify(
            name.partition("-")[0],
            status=refusal.status_code,
            headers=dict(refusal.headers),
            body=refusal.content,
        )
        assert (failure.outcome, failure.kind) == (Outcome.RATE_LIMITED, "ramp")
        call.clock.now += 10.0
        assert [(await call()).status_code for _ in range(7)] == [200] * 6 + [429]

    async def test_others_refuse_in_their_own_words(self) -> None:
        """Every provider that counts requests can have such a limit."""
        for provider in PROVIDERS:
            call = Caller(provider.name, self.FAST)
            found = [(await call()).status_code for _ in range(4)]
            expected = [200] * 4 if provider.name == "ollama" else [200] * 3 + [429]
            assert found == expected, provider.name

    def test_a_factor_of_one_is_refused(self) -> None:
        """Nothing could ever grow."""
        with pytest.raises(InvalidOptionError, match="more than 1"):
            SimOptions(acceleration=1.0)
