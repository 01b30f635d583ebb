"""The simulated provider: its limits over time, and what it says over HTTP."""

import json
import random
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from limiter_service.provider_sim import (
    Charge,
    InvalidOptionError,
    SimOptions,
    Window,
    create_sim_app,
)
from limiter_service.provider_sim.accounting import Sizes, plain
from limiter_service.provider_sim.headers import go_duration, retry_headers
from limiter_service.provider_sim.limits import (
    Admitted,
    Budget,
    Decision,
    Meter,
    Refused,
    TooLarge,
)
from limiter_service.provider_sim.provider import Ask, Provider

CHAT = "/v1/chat/completions"
SHARED = Path(__file__).parents[3] / "shared"
CAPTURED = SHARED / "data" / "streams" / "openai__chat__openai-text.chunks.txt"

# Answers that come at once: the tests are about limits and shapes.
INSTANT = SimOptions(rpm=60, tpm=6000, latency=0, tokens_per_second=1e9)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def client(options: SimOptions, clock: Clock | None = None) -> httpx.AsyncClient:
    app = create_sim_app(options, clock or Clock())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://provider")


def chat(**fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "How high is the water?"}
    return {"model": "gpt-4o-mini", "messages": [message], **fields}


def events(text: str) -> list[str]:
    """The data of each event of a stream."""
    return [event.removeprefix("data: ") for event in text.split("\n\n") if event]


def account(*, rpm: int, tpm: int, window: Window) -> Budget:
    return Budget(plain.limits(SimOptions(rpm=rpm, tpm=tpm, window=window)))


def ask(budget: Budget, tokens: int, now: float) -> Decision:
    return budget.admit({Meter.REQUESTS: 1, Meter.TOKENS: tokens}, now)


def granted(budget: Budget, tokens: int, now: float) -> bool:
    return isinstance(ask(budget, tokens, now), Admitted)


def refused(decision: Decision) -> Refused:
    assert isinstance(decision, Refused)
    return decision


class TestWindows:
    """How limits fill up and open again."""

    def test_bucket_refills_continuously(self) -> None:
        """A full bucket grants a minute's worth at once, then at the rate of the limit."""
        budget = account(rpm=1000, tpm=6000, window=Window.BUCKET)
        assert granted(budget, 6000, 0.0)
        assert refused(ask(budget, 100, 0.5)).retry_after == pytest.approx(0.5)
        assert granted(budget, 100, 1.0)
        assert not granted(budget, 100, 1.5)

    def test_bucket_never_holds_more_than_its_limit(self) -> None:
        """An idle hour earns no more than one minute."""
        budget = account(rpm=1000, tpm=6000, window=Window.BUCKET)
        assert granted(budget, 6000, 3600.0)
        assert not granted(budget, 1, 3600.0)

    def test_minute_opens_at_its_boundary(self) -> None:
        """A fixed minute that is spent grants again when the next one begins."""
        budget = account(rpm=1000, tpm=6000, window=Window.MINUTE)
        assert granted(budget, 6000, 59.0)
        assert refused(ask(budget, 1, 59.5)).retry_after == pytest.approx(0.5)
        assert granted(budget, 6000, 60.0)

    def test_second_limits_requests_in_each_second(self) -> None:
        """One-second windows refuse a burst that the minute has room for."""
        budget = account(rpm=120, tpm=6000, window=Window.SECOND)
        assert [granted(budget, 1, 0.1) for _ in range(3)] == [True, True, False]
        decision = refused(ask(budget, 1, 0.75))
        assert decision.meter is Meter.REQUESTS
        assert decision.retry_after == pytest.approx(0.25)
        assert decision.quotas[Meter.REQUESTS].remaining == 118
        assert granted(budget, 1, 1.0)

    def test_second_counts_tokens_by_the_minute(self) -> None:
        """Tokens are not cut into seconds: a large request needs a whole minute's limit."""
        budget = account(rpm=120, tpm=6000, window=Window.SECOND)
        assert granted(budget, 6000, 0.0)
        assert refused(ask(budget, 1, 30.0)).retry_after == pytest.approx(30.0)

    @pytest.mark.parametrize("window", Window)
    def test_a_refusal_charges_nothing(self, window: Window) -> None:
        """Requests that are refused for tokens leave the requests of the minute alone."""
        budget = account(rpm=60, tpm=100, window=window)
        assert granted(budget, 100, 0.0)
        before = budget.quotas(0.0)
        assert not granted(budget, 100, 0.0)
        assert budget.quotas(0.0) == before

    @pytest.mark.parametrize("window", Window)
    def test_too_large_is_not_a_matter_of_time(self, window: Window) -> None:
        """A request beyond the limit is told so, whatever the level."""
        budget = account(rpm=60, tpm=100, window=window)
        assert isinstance(ask(budget, 101, 0.0), TooLarge)
        assert granted(budget, 100, 0.0)

    @pytest.mark.parametrize("window", Window)
    def test_waiting_as_told_is_enough(self, window: Window) -> None:
        """Whoever comes back after the announced time, rounded to milliseconds, gets in."""
        chance = random.Random(11)
        budget, now = account(rpm=90, tpm=5000, window=window), 0.0
        for _ in range(500):
            tokens = chance.randint(1, 400)
            decision = ask(budget, tokens, now)
            if isinstance(decision, Refused):
                now += int(retry_headers(decision.retry_after)["retry-after-ms"]) / 1000
                decision = ask(budget, tokens, now)
            assert isinstance(decision, Admitted)

    @pytest.mark.parametrize("window", Window)
    def test_never_grants_more_than_it_says_it_allowed(self, window: Window) -> None:
        """Under constant pressure the grants stay within the allowance, and near it."""
        chance = random.Random(5)
        budget, tokens, requests, now = account(rpm=300, tpm=9000, window=window), 0, 0, 0.0
        while now < 299.0:
            amount = chance.randint(1, 50)
            if granted(budget, amount, now):
                tokens, requests = tokens + amount, requests + 1
            now += 0.05
        assert tokens <= budget.allowed(Meter.TOKENS, now)
        assert requests <= budget.allowed(Meter.REQUESTS, now)
        used = max(
            tokens / budget.allowed(Meter.TOKENS, now),
            requests / budget.allowed(Meter.REQUESTS, now),
        )
        assert used > 0.98


def test_charge_rules() -> None:
    """Each rule counts what its provider counts."""
    sizes = Sizes(input=700, max_output=1000, output=30)
    assert plain.charge_of(Charge.MAX, sizes) == 1000
    assert plain.charge_of(Charge.SUM, sizes) == 1700
    assert plain.charge_of(Charge.ACTUAL, sizes) == 730
    assert plain.charge_of(Charge.MAX, Sizes(input=700, output=30)) == 700


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.12, "120ms"),
        (0.0001, "1ms"),
        (0.9995, "1s"),
        (1.146, "1.146s"),
        (59.5, "59.5s"),
        (360, "6m0s"),
        (179.56, "2m59.56s"),
        (3600, "1h0m0s"),
        (86400, "24h0m0s"),
    ],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    """Reset times have Go's syntax, rounded up to milliseconds."""
    assert go_duration(seconds) == text


class TestDeterminism:
    """The same requests in the same order meet the same provider."""

    ASK = Ask(input_tokens=100, max_output=200)

    def test_a_seed_repeats_itself(self) -> None:
        """Two providers with one seed agree on decisions, sizes and times; another differs."""

        def replies(seed: int) -> list[object]:
            provider = Provider(SimOptions(rpm=60, tpm=2000, seed=seed))
            return [provider.answer(self.ASK, now / 10) for now in range(100)]

        assert replies(1) == replies(1)
        assert replies(1) != replies(2)

    def test_sizes_do_not_depend_on_decisions(self) -> None:
        """An account with less budget refuses more, and gives its answers the same sizes."""

        def sizes(tpm: int) -> list[int]:
            provider = Provider(SimOptions(tpm=tpm))
            return [provider.answer(self.ASK, 0.0).output_tokens for _ in range(50)]

        assert sizes(400) == sizes(1_000_000)

    def test_latency_has_the_mean_that_was_asked_for(self) -> None:
        """Time to first token and pace vary around the options."""
        provider = Provider(SimOptions(latency=2.0, tokens_per_second=50, tpm=10**9, rpm=10**9))
        ask = Ask(input_tokens=1, output_tokens=100)
        replies = [provider.answer(ask, 0.0) for _ in range(2000)]
        assert sum(r.first_token for r in replies) / 2000 == pytest.approx(2.0, rel=0.05)
        pace = sum(r.duration - r.first_token for r in replies) / 2000
        assert pace == pytest.approx(2.0, rel=0.05)
        assert len({r.first_token for r in replies}) > 1900


class TestAnswers:
    """What a request gets when it is admitted."""

    async def test_plain(self) -> None:
        """A plain answer has text, finish reason, usage, and both limits in its headers."""
        async with client(INSTANT) as http:
            replay = {"x-sim-input-tokens": "900", "x-sim-output-tokens": "7"}
            answer = await http.post(CHAT, json=chat(max_tokens=1000), headers=replay)
        assert answer.status_code == 200
        body = answer.json()
        assert body["object"] == "chat.completion"
        assert body["model"] == "gpt-4o-mini"
        assert body["usage"] == {
            "prompt_tokens": 900,
            "completion_tokens": 7,
            "total_tokens": 907,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
        [choice] = body["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["role"] == "assistant"
        assert len(choice["message"]["content"].split()) == 7
        limits = {k: v for k, v in answer.headers.items() if k.startswith("x-ratelimit")}
        assert limits == {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "6000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "5000",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "10s",
        }

    async def test_prompt_is_estimated_from_its_bytes(self) -> None:
        """Without replay headers a prompt counts a token for four bytes."""
        async with client(INSTANT) as http:
            message = {"role": "user", "content": "x" * 398}
            answer = await http.post(CHAT, json=chat(messages=[message]))
        assert answer.json()["usage"]["prompt_tokens"] == 100

    async def test_max_tokens_cuts_the_answer(self) -> None:
        """An answer that would be longer than `max_tokens` ends there, with reason `length`."""
        async with client(INSTANT) as http:
            replay = {"x-sim-output-tokens": "50"}
            answer = await http.post(CHAT, json=chat(max_tokens=20), headers=replay)
        body = answer.json()
        assert body["usage"]["completion_tokens"] == 20
        assert body["choices"][0]["finish_reason"] == "length"

    async def test_stream(self) -> None:
        """A stream opens with the role, carries a token per chunk and ends with `[DONE]`."""
        async with client(INSTANT) as http:
            replay = {"x-sim-output-tokens": "3"}
            answer = await http.post(CHAT, json=chat(stream=True), headers=replay)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-ratelimit-remaining-requests"] == "59"
        *chunks, done = events(answer.text)
        assert done == "[DONE]"
        parsed = [json.loads(chunk) for chunk in chunks]
        assert {chunk["object"] for chunk in parsed} == {"chat.completion.chunk"}
        assert len({chunk["id"] for chunk in parsed}) == 1
        assert not any("usage" in chunk for chunk in parsed)
        choices = [chunk["choices"][0] for chunk in parsed]
        assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert all(list(choice["delta"]) == ["content"] for choice in choices[1:-1])
        assert len(choices[1:-1]) == 3
        assert choices[-1]["delta"] == {}
        assert [c["finish_reason"] for c in choices] == [None, None, None, None, "stop"]

    async def test_stream_with_usage(self) -> None:
        """With `include_usage` the last chunk has usage and no choice; the others say null."""
        async with client(INSTANT) as http:
            body = chat(stream=True, stream_options={"include_usage": True})
            replay = {"x-sim-input-tokens": "4", "x-sim-output-tokens": "3"}
            answer = await http.post(CHAT, json=body, headers=replay)
        *chunks, last, done = events(answer.text)
        assert done == "[DONE]"
        assert [json.loads(chunk)["usage"] for chunk in chunks] == [None] * 5
        assert json.loads(last)["choices"] == []
        assert json.loads(last)["usage"] == {
            "prompt_tokens": 4,
            "completion_tokens": 3,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    @pytest.mark.skipif(not CAPTURED.exists(), reason="captured streams are not on this machine")
    async def test_chunks_look_like_captured_ones(self) -> None:
        """Every field of our chunks stands in a captured stream, nested alike."""
        captured = captured_chunks()
        async with client(INSTANT) as http:
            body = chat(stream=True, stream_options={"include_usage": True})
            answer = await http.post(CHAT, json=body)
        ours = [json.loads(chunk) for chunk in events(answer.text)[:-1]]
        for place in (0, 1, -2, -1):
            assert fields(ours[place]) <= fields(captured[place])

    async def test_models(self) -> None:
        """The list of models has OpenAI's shape."""
        async with client(INSTANT) as http:
            body = (await http.get("/v1/models")).json()
        assert body["object"] == "list"
        assert {"id", "object", "created", "owned_by"} == set(body["data"][0])


def captured_chunks() -> list[Any]:
    return [json.loads(line) for line in CAPTURED.read_text().splitlines()]


def fields(value: object, path: str = "") -> set[str]:
    """Every path to a field in a JSON value."""
    if isinstance(value, dict):
        return {
            name
            for key, inner in value.items()
            for name in {f"{path}.{key}", *fields(inner, f"{path}.{key}")}
        }
    if isinstance(value, list):
        return {name for inner in value for name in fields(inner, f"{path}[]")}
    return set()


class TestRefusals:
    """What a request gets when it is not admitted."""

    async def test_tokens(self) -> None:
        """A 429 for tokens states limit, use and need, and when to come back."""
        async with client(INSTANT) as http:
            await http.post(CHAT, json=chat(max_tokens=5000))
            answer = await http.post(CHAT, json=chat(max_tokens=1114))
        assert answer.status_code == 429
        assert answer.headers["retry-after-ms"] == "1140"
        assert answer.headers["retry-after"] == "2"
        assert answer.headers["x-ratelimit-remaining-tokens"] == "1000"
        assert answer.json() == {
            "error": {
                "message": "Rate limit reached for gpt-4o-mini in organization org-sim on tokens"
                " per min (TPM): Limit 6000, Used 5000, Requested 1114. Please try again in"
                " 1.14s. Visit https://platform.openai.com/account/rate-limits to learn more.",
                "type": "tokens",
                "param": None,
                "code": "rate_limit_exceeded",
            }
        }

    async def test_requests(self) -> None:
        """A 429 for requests is of type `requests`."""
        options = msgspec.structs.replace(INSTANT, rpm=1)
        async with client(options) as http:
            await http.post(CHAT, json=chat())
            answer = await http.post(CHAT, json=chat())
        assert answer.status_code == 429
        error = answer.json()["error"]
        assert error["type"] == "requests"
        assert "requests per min (RPM): Limit 1, Used 1, Requested 1." in error["message"]
        assert "try again in 1m0s." in error["message"]
        assert answer.headers["retry-after"] == "60"

    async def test_too_large(self) -> None:
        """A request beyond the limit gets a 429 that names no time to come back."""
        async with client(INSTANT) as http:
            answer = await http.post(CHAT, json=chat(max_tokens=6001))
        assert answer.status_code == 429
        assert answer.json()["error"]["message"].startswith(
            "Request too large for gpt-4o-mini in organization org-sim on tokens per min (TPM):"
            " Limit 6000, Requested 6001."
        )
        assert "retry-after" not in answer.headers

    async def test_the_way_back_in(self) -> None:
        """After the announced time, and not before, the request is admitted."""
        clock = Clock()
        async with client(INSTANT, clock) as http:
            await http.post(CHAT, json=chat(max_tokens=6000))
            wait = (await http.post(CHAT, json=chat(max_tokens=50))).headers["retry-after-ms"]
            clock.now += int(wait) / 1000 - 0.002
            assert (await http.post(CHAT, json=chat(max_tokens=50))).status_code == 429
            clock.now += 0.002
            assert (await http.post(CHAT, json=chat(max_tokens=50))).status_code == 200

    async def test_speed_shortens_reported_times(self) -> None:
        """At speed 60 the provider's minute is a second, and that is what it reports."""
        clock = Clock()
        options = msgspec.structs.replace(INSTANT, window=Window.MINUTE, speed=60)
        async with client(options, clock) as http:
            await http.post(CHAT, json=chat(max_tokens=6000))
            clock.now += 0.25
            answer = await http.post(CHAT, json=chat())
            assert answer.headers["retry-after-ms"] == "750"
            assert answer.headers["x-ratelimit-reset-tokens"] == "750ms"
            assert "try again in 750ms." in answer.json()["error"]["message"]
            clock.now += 0.75
            assert (await http.post(CHAT, json=chat())).status_code == 200

    @pytest.mark.parametrize(
        ("content", "param", "code"),
        [
            (b"", None, None),
            (b"{", None, None),
            (b'{"model": "\xff"}', None, None),
            (b"[]", None, "invalid_value"),
            (b"{}", "model", "missing_required_parameter"),
            (b'{"model": "m"}', "messages", "missing_required_parameter"),
            (b'{"model": "m", "messages": []}', "messages", "invalid_value"),
            (b'{"model": "m", "messages": "hi"}', "messages", "invalid_value"),
            (
                b'{"model": "m", "messages": [{}]}',
                "messages[0].role",
                "missing_required_parameter",
            ),
            (
                b'{"model": "m", "messages": [{"role": "user"}], "max_tokens": 0}',
                "max_tokens",
                "invalid_value",
            ),
        ],
    )
    async def test_bad_bodies(self, content: bytes, param: str | None, code: str | None) -> None:
        """A body that is no chat request gets a 400 that names the parameter."""
        async with client(INSTANT) as http:
            answer = await http.post(CHAT, content=content)
            stats = (await http.get("/sim/stats")).json()
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert (error["param"], error["code"]) == (param, code)
        assert stats["requests"] == 0

    @pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "1000001", "9" * 5000])
    async def test_bad_replay_sizes(self, value: str) -> None:
        """A replay header that is no number of tokens gets a 400 that names it."""
        async with client(INSTANT) as http:
            headers = {"x-sim-output-tokens": value}
            answer = await http.post(CHAT, json=chat(), headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "x-sim-output-tokens"

    async def test_unknown_routes(self) -> None:
        """Wrong paths and methods get errors in the same shape."""
        async with client(INSTANT) as http:
            missing = await http.get("/v1/nothing")
            wrong = await http.get(CHAT)
        assert missing.status_code == 404
        assert missing.json()["error"]["message"] == "Invalid URL (GET /v1/nothing)"
        assert wrong.status_code == 405
        assert wrong.headers["allow"] == "POST"
        assert wrong.json()["error"]["code"] == "method_not_supported"


class TestCounters:
    """What the provider counted."""

    async def test_stats(self) -> None:
        """Grants, refusals and tokens are counted in total, by second and by minute."""
        clock = Clock()
        async with client(INSTANT, clock) as http:
            await http.post(CHAT, json=chat(max_tokens=5900))
            clock.now += 61
            await http.post(CHAT, json=chat(max_tokens=5950))
            await http.post(CHAT, json=chat(max_tokens=5950))
            await http.post(CHAT, json=chat(max_tokens=6001))
            stats = (await http.get("/sim/stats")).json()
        assert (stats["requests"], stats["granted"], stats["refused"]) == (4, 2, 1)
        assert stats["too_large"] == 1
        assert stats["tokens_granted"] == 11_850
        assert stats["last_grant"] == 61
        assert stats["tokens_allowed"] == pytest.approx(6000 + 6100)
        assert [(t["at"], t["granted"]) for t in stats["by_second"]] == [(0, 1), (61, 1)]
        assert [(t["at"], t["requests"]) for t in stats["by_minute"]] == [(0, 1), (60, 3)]

    async def test_reset(self) -> None:
        """A reset forgets everything: counts, levels and the position in the sequence."""
        async with client(INSTANT) as http:
            first = await http.post(CHAT, json=chat(max_tokens=6000))
            assert (await http.post("/sim/reset")).status_code == 204
            again = await http.post(CHAT, json=chat(max_tokens=6000))
            assert (await http.get("/sim/stats")).json()["requests"] == 1
        assert again.json() == first.json()


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("rpm", 0, "at least 1"),
        ("tpm", -5, "at least 1"),
        ("latency", -0.5, "zero or a positive"),
        ("latency", float("nan"), "zero or a positive"),
        ("tokens_per_second", 0.0, "a positive"),
        ("speed", float("inf"), "a positive"),
    ],
)
def test_impossible_options(field: str, value: float, allowed: str) -> None:
    """An impossible option is refused by name, with its value and what is allowed."""
    with pytest.raises(InvalidOptionError) as caught:
        SimOptions(**{field: value})  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.field == field
    assert f"{field} is {value!r}, but must be {allowed}" in str(caught.value)


def test_one_second_windows_need_a_request_per_second() -> None:
    """Fewer than sixty requests per minute do not fit into one-second windows."""
    with pytest.raises(InvalidOptionError, match="rpm is 59"):
        SimOptions(rpm=59, window=Window.SECOND)
