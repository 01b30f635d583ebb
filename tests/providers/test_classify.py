"""What a failed call means: every provider, in the words that it uses."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_wire import Outcome
from limiter_wire.providers import (
    PROFILES,
    Backoff,
    Failure,
    Impact,
    Refund,
    Retry,
    Scope,
    classify,
    classify_local,
)
from limiter_wire.providers.classifying import TABLES

INVALID = "invalid_request_error"
MONEY = "insufficient_quota"
NOW = 1_764_072_000.0  # 2025-11-25 12:00 UTC


def error(message: str = "", **fields: Any) -> dict[str, Any]:
    """A body as most send it."""
    return {"error": {"message": message, **fields}}


def violation(quota: str, delay: str | None = None, message: str = "Quota exceeded") -> str:
    """A refusal of Google's, with its typed details, inside a list."""
    details: list[dict[str, Any]] = [
        {"@type": "t/QuotaFailure", "violations": [{"quotaId": quota}]},
    ]
    if delay:
        details.append({"@type": "t/RetryInfo", "retryDelay": delay})
    body = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": message, "details": details}
    return json.dumps([{"error": body}])


CASES: list[tuple[str, dict[str, Any], str]] = [
    # provider, what was seen, "category kind retry impact pin refund"
    (
        "openai",
        {"status": 429, "body": error("You have no credit", code="insufficient_quota")},
        "quota_exhausted billing no quota_pin project all",
    ),
    (
        "openai",
        {"status": 429, "body": error("Too fast", code="slow_down", type="requests")},
        "rate_limited ramp yes throttle - tokens",
    ),
    (
        "openai",
        {"status": 429, "body": error("Request too large for gpt-9: Limit 9", code="tokens")},
        "invalid_request too_large_for_limit changed neutral - tokens",
    ),
    (
        "openai",
        {"status": 429, "body": error("requests per day (RPD): Limit 9", code="requests")},
        "rate_limited daily reset throttle - tokens",
    ),
    (
        "openai",
        {"stream": True, "body": {"type": "error", "code": "server_error", "message": "oh"}},
        "server_error in_stream before_content failure - settle",
    ),
    (
        "openai",
        {
            "stream": True,
            "body": {"type": "response.failed", "response": error(code="insufficient_quota")},
        },
        "quota_exhausted billing no quota_pin project settle",
    ),
    (
        "openai",
        {
            "stream": True,
            "body": {
                "type": "response.incomplete",
                "response": {"incomplete_details": {"reason": "content_filter"}},
            },
        },
        "content_filtered output no alive - settle",
    ),
    (
        "azure",
        {"status": 429, "body": error("The service is experiencing high demand. Retry later.")},
        "overloaded regional_capacity elsewhere capacity - tokens",
    ),
    (
        "azure",
        {"status": 429, "body": error("You exceeded the call rate limit of your tier.")},
        "rate_limited deployment yes throttle - tokens",
    ),
    (
        "azure",
        {"status": 404, "body": error(code="DeploymentNotFound")},
        "not_found deployment elsewhere model_pin deployment all",
    ),
    (
        "azure",
        {"status": 401, "body": error(code="invalid_api_key")},
        "auth credential no auth_pin key all",
    ),
    (
        "anthropic",
        {
            "status": 429,
            "body": {
                "type": "error",
                "error": {
                    "type": "rate_limit_error",
                    "message": "You will regain access on 2025-12-01 at 00:00 UTC.",
                    "details": {"error_code": "enforced_spend_limit_reached"},
                },
            },
        },
        "quota_exhausted monthly_spend reset quota_pin org all",
    ),
    (
        "anthropic",
        {"status": 400, "body": error("Your credit balance is too low", type=INVALID)},
        "quota_exhausted credits no quota_pin org all",
    ),
    (
        "anthropic",
        {"status": 529, "body": {"type": "error", "error": {"type": "overloaded_error"}}},
        "overloaded overloaded yes capacity - tokens",
    ),
    (
        "anthropic",
        {"stream": True, "body": {"type": "error", "error": {"type": "overloaded_error"}}},
        "overloaded in_stream before_content capacity - settle",
    ),
    (
        "anthropic",
        {
            "status": 400,
            "body": error(
                "max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens",
                type=INVALID,
            ),
        },
        "invalid_request max_tokens changed neutral - tokens",
    ),
    (
        "google",
        {"status": 429, "body": violation("GenerateRequestsPerDayPerProject", "3600s")},
        "quota_exhausted daily reset quota_pin model all",
    ),
    (
        "google",
        {
            "status": 429,
            "body": violation("RequestsPerMinute", "34.07s", "check your plan and billing"),
        },
        "rate_limited minute yes throttle - tokens",
    ),
    (
        "google",
        {"status": 429, "body": violation("PerDay", None, "Quota exceeded, limit: 0")},
        "quota_exhausted not_in_tier no quota_pin model all",
    ),
    (
        "google",
        {"status": 400, "body": error("API key not valid.", status="INVALID_ARGUMENT")},
        "auth credential no auth_pin key all",
    ),
    (
        "google",
        {"status": 503, "body": error("busy", code=429, status="RESOURCE_EXHAUSTED")},
        "rate_limited unspecified yes throttle - tokens",
    ),
    (
        "google",
        {"stream": True, "body": {"candidates": [{"finishReason": "SAFETY"}]}},
        "content_filtered blocked no alive - settle",
    ),
    (
        "google",
        {"stream": True, "body": {"promptFeedback": {"blockReason": "OTHER"}}},
        "content_filtered blocked no alive - settle",
    ),
    (
        "google",
        {"stream": True, "body": error("gone", code=503, status="UNAVAILABLE")},
        "overloaded overloaded before_content capacity - settle",
    ),
    (
        "vertex",
        {"status": 429, "body": error("Resource exhausted.", status="RESOURCE_EXHAUSTED")},
        "overloaded shared_quota yes throttle - tokens",
    ),
    (
        "vertex",
        {"status": 429, "body": error("Quota exceeded for x", status="RESOURCE_EXHAUSTED")},
        "rate_limited unspecified yes throttle - tokens",
    ),
    (
        "bedrock",
        {
            "status": 429,
            "headers": {"x-amzn-ErrorType": "ThrottlingException:http://internal/"},
            "body": {"message": "Too many tokens, please wait before trying again."},
        },
        "rate_limited minute yes throttle - tokens",
    ),
    (
        "bedrock",
        {
            "status": 429,
            "body": {"__type": "x#ThrottlingException", "message": "Too many tokens per day"},
        },
        "quota_exhausted daily reset quota_pin model tokens",
    ),
    (
        "bedrock",
        {
            "status": 400,
            "body": {
                "Error": {
                    "Code": "ValidationException",
                    "Message": "Input is too long for requested model.",
                }
            },
        },
        "context_length_exceeded prompt changed neutral - tokens",
    ),
    (
        "bedrock",
        {"stream": True, "body": {"throttlingException": {"message": "slow"}}},
        "rate_limited in_stream before_content throttle - settle",
    ),
    (
        "bedrock",
        {"status": 403, "body": "<E><Code>ExpiredToken</Code><Message>old</Message></E>"},
        "auth credential no auth_pin key all",
    ),
    (
        "mistral",
        {"status": 429, "body": {"object": "error", "message": "full", "code": "3505"}},
        "overloaded tier_capacity yes capacity - tokens",
    ),
    (
        "mistral",
        {"status": 429, "body": {"object": "error", "message": "slower", "code": 1300}},
        "rate_limited second_or_minute yes throttle - tokens",
    ),
    (
        "mistral",
        {"stream": True, "body": {"choices": [{"finish_reason": "error"}]}},
        "stream_interrupted finish_error before_content failure - settle",
    ),
    (
        "groq",
        {"status": 498, "body": error(code="capacity_exceeded")},
        "overloaded flex_tier elsewhere capacity - all",
    ),
    (
        "groq",
        {"status": 400, "body": error("bad call", code="tool_use_failed")},
        "malformed_stream tool_call once alive - settle",
    ),
    (
        "groq",
        {"status": 429, "body": error("tokens per day (TPD): Limit 9")},
        "rate_limited daily reset throttle - tokens",
    ),
    (
        "cerebras",
        {
            "status": 429,
            "body": {
                "message": "Requests per minute limit exceeded",
                "type": "too_many_requests_error",
                "param": "quota",
                "code": "request_quota_exceeded",
            },
        },
        "rate_limited rate yes throttle - tokens",
    ),
    (
        "cerebras",
        {"status": 413, "body": b""},
        "context_length_exceeded no_body changed neutral - all",
    ),
    (
        "xai",
        {
            "status": 400,
            "body": error("maximum prompt length is 100 but the request contains 120 tokens"),
        },
        "context_length_exceeded prompt changed neutral - tokens",
    ),
    ("xai", {"status": 429}, "rate_limited second_or_minute yes throttle - tokens"),
    ("deepseek", {"status": 402}, "quota_exhausted balance no quota_pin key all"),
    ("deepseek", {"status": 429}, "rate_limited concurrency yes throttle - all"),
    (
        "cohere",
        {"status": 429, "body": {"message": "Trial keys: 1000 API calls / month"}},
        "quota_exhausted trial_month reset quota_pin key all",
    ),
    ("cohere", {"status": 498}, "auth token_or_blocked no auth_pin key all"),
    (
        "cohere",
        {"stream": True, "body": {"delta": {"finish_reason": "ERROR", "error": "x"}}},
        "stream_interrupted finish_error before_content failure - settle",
    ),
    (
        "together",
        {"status": 429, "body": error(type="dynamic_token_limited")},
        "rate_limited dynamic yes throttle - tokens",
    ),
    ("together", {"status": 503}, "overloaded below_own_rate yes capacity - tokens"),
    ("fireworks", {"status": 429}, "rate_limited adaptive yes throttle - tokens"),
    (
        "fireworks",
        {"stream": True, "body": error("boom", type="error")},
        "server_error in_stream before_content failure - settle",
    ),
    (
        "openrouter",
        {"status": 402, "body": error(code=402, metadata={"error_type": "payment_required"})},
        "quota_exhausted credits no quota_pin key all",
    ),
    (
        "openrouter",
        {
            "status": 402,
            "body": error(code=402, metadata={"error_type": "openrouter_in_flight_budget"}),
        },
        "rate_limited in_flight_budget yes throttle - all",
    ),
    (
        "openrouter",
        {"status": 429, "body": error("Rate limit exceeded: free-models-per-day", code=429)},
        "quota_exhausted free_daily reset quota_pin key all",
    ),
    (
        "openrouter",
        {"status": 429, "body": error("busy", code=429, metadata={"provider_name": "Z"})},
        "rate_limited upstream elsewhere throttle - all",
    ),
    (
        "openrouter",
        {"status": 200, "body": error("down", code=502)},
        "server_error upstream elsewhere failure - all",
    ),
    (
        "openrouter",
        {"status": 400, "body": error("no", code=400, availability={"retryable": True})},
        "invalid_request request yes neutral - tokens",
    ),
    (
        "ollama",
        {"status": 503, "body": {"error": "server busy, maximum pending requests exceeded"}},
        "overloaded queue_full yes throttle - all",
    ),
    (
        "ollama",
        {"status": 404, "body": {"error": "model 'x' not found"}},
        "not_found not_installed elsewhere model_pin model all",
    ),
    (
        "ollama",
        {"stream": True, "body": {"error": "an error was encountered"}},
        "server_error in_stream before_content failure - settle",
    ),
    (
        "vllm",
        {"stream": True, "body": error("Internal", type="InternalServerError", code=500)},
        "server_error internal before_content failure - settle",
    ),
    (
        "vllm",
        {"stream": True, "body": error("no such option", type="BadRequestError", code=400)},
        "invalid_request request no neutral - settle",
    ),
    (
        "sglang",
        {"stream": True, "body": {"choices": [{"finish_reason": "abort"}]}},
        "stream_interrupted abort before_content failure - settle",
    ),
    (
        "llamacpp",
        {"status": 503, "body": error("Loading model", type="unavailable_error", code=503)},
        "overloaded loading yes capacity - all",
    ),
    (
        "generic",
        {"status": 429, "body": error("You exceeded your current quota", code="x_quota")},
        "quota_exhausted billing no quota_pin key all",
    ),
    (
        "generic",
        {"status": 429, "body": error("too many", code="request_quota")},
        "rate_limited unspecified yes throttle - tokens",
    ),
    ("generic", {"status": 524}, "timeout gateway once failure - hold"),
    ("generic", {"status": 409}, "server_error conflict yes neutral - tokens"),
    ("generic", {"status": 418}, "invalid_request unlisted_status no neutral - tokens"),
    ("generic", {"status": 599}, "server_error unlisted_status yes failure - tokens"),
    ("generic", {"status": 302}, "invalid_request unexpected_status no neutral - tokens"),
    (
        "generic",
        {"status": 200, "body": "<!DOCTYPE html><html>sign in</html>"},
        "malformed_stream html once failure - tokens",
    ),
    (
        "generic",
        {"status": 502, "body": "<html><h1>Bad gateway</h1></html>"},
        "server_error internal yes failure - tokens",
    ),
    (
        "generic",
        {"stream": True, "body": error("engine is overloaded", type="overloaded_error")},
        "overloaded in_stream before_content capacity - settle",
    ),
    ("generic", {}, "cancelled unknown no neutral - hold"),
]


@pytest.mark.parametrize(
    ("provider", "seen", "meaning"), CASES, ids=[f"{p}: {m}" for p, _, m in CASES]
)
def test_a_failure_means_what_the_provider_means(provider: str, seen: dict[str, Any], meaning: str):
    """Category, finer kind, retry, what the breaker does, what is pinned, what goes back."""
    failure = classify(provider, **seen)
    said = [failure.category, failure.kind, failure.retry, failure.impact, failure.pin or "-"]
    assert " ".join([*said, failure.refund]) == meaning
    assert failure.provider == provider


def test_every_provider_has_cases_and_a_table():
    """A profile without rules would answer by status alone, unnoticed."""
    assert {provider for provider, _, _ in CASES} == set(PROFILES)
    assert set(TABLES) == set(PROFILES) - {"generic"}


LOCAL = [
    ("PoolTimeout", Outcome.TIMEOUT, "local_pool", Impact.NEUTRAL, Refund.ALL),
    ("ConnectTimeout: to host", Outcome.CONNECTION, "connect_timeout", Impact.FAILURE, Refund.ALL),
    ("ConnectError: [SSL]", Outcome.CONNECTION, "connect", Impact.FAILURE, Refund.ALL),
    ("WriteError", Outcome.CONNECTION, "send", Impact.FAILURE, Refund.TOKENS),
    (
        "RemoteProtocolError: Server disconnected without sending a response.",
        Outcome.CONNECTION,
        "stale_socket",
        Impact.NEUTRAL,
        Refund.HOLD,
    ),
    ("ReadTimeout: headers", Outcome.TIMEOUT, "no_response", Impact.FAILURE, Refund.HOLD),
    ("ReadError", Outcome.STREAM_INTERRUPTED, "mid_body", Impact.FAILURE, Refund.SETTLE),
    (
        "eof_without_terminator",
        Outcome.STREAM_INTERRUPTED,
        "eof",
        Impact.FAILURE,
        Refund.SETTLE,
    ),
    ("idle_watchdog", Outcome.STREAM_INTERRUPTED, "idle", Impact.FAILURE, Refund.SETTLE),
    ("progress_watchdog", Outcome.TIMEOUT, "no_progress", Impact.FAILURE, Refund.SETTLE),
    ("bad_json", Outcome.MALFORMED_STREAM, "undecodable", Impact.FAILURE, Refund.SETTLE),
    ("html_body", Outcome.MALFORMED_STREAM, "html", Impact.FAILURE, Refund.TOKENS),
    ("tool_args_invalid", Outcome.MALFORMED_STREAM, "tool_arguments", Impact.ALIVE, Refund.SETTLE),
    ("cancelled", Outcome.TIMEOUT, "cancelled", Impact.NEUTRAL, Refund.SETTLE),
    ("ValueError: of the caller", Outcome.CANCELLED, "unknown", Impact.NEUTRAL, Refund.HOLD),
]


@pytest.mark.parametrize(("cause", "category", "kind", "impact", "refund"), LOCAL)
def test_what_happens_here_is_told_apart_too(
    cause: str, category: Outcome, kind: str, impact: Impact, refund: Refund
):
    """Only what may be the provider's fault speaks against it."""
    failure = classify_local(cause)
    said = (failure.category, failure.kind, failure.impact, failure.refund)
    assert said == (category, kind, impact, refund)


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (classify("generic", status=409), Outcome.INVALID_REQUEST),  # neutral, and refunded
        (classify("google", status=499), Outcome.CANCELLED),  # neutral, and held
        (classify_local("cancelled"), Outcome.CANCELLED),
        (classify("ollama", status=503, body={"error": "server busy"}), Outcome.RATE_LIMITED),
        (
            classify(
                "openai",
                stream=True,
                body={"response": {"incomplete_details": {"reason": "max_output_tokens"}},
                      "type": "response.incomplete"},
            ),
            Outcome.SUCCESS,
        ),
        (classify("anthropic", status=503, body=error(code="cmek_key_unreachable")),
         Outcome.PERMISSION),
        (classify("openai", status=500), Outcome.SERVER_ERROR),
        (classify("azure", status=429), Outcome.RATE_LIMITED),
    ],
    ids=lambda value: value.kind if isinstance(value, Failure) else "",
)  # fmt: skip
def test_a_settle_reports_what_makes_breaker_and_refund_right(failure: Failure, outcome: Outcome):
    """The outcome differs from the category where that alone would be misread."""
    assert failure.outcome is outcome


def test_scope_says_how_far_a_failure_reaches():
    """A bad request is its own, an overload the model's, a bad key everybody's."""
    assert classify("openai", status=400).scope is Scope.REQUEST
    assert classify("openai", status=503).scope is Scope.MODEL
    assert classify("openai", status=404).scope is Scope.MODEL
    assert classify("openai", status=401).scope is Scope.PROVIDER
    assert classify_local("ConnectError").scope is Scope.PROVIDER


def hint(provider: str, **seen: Any) -> tuple[Backoff, float | None]:
    """Where the next attempt's time came from, and the seconds."""
    failure = classify(provider, now=NOW, **seen)
    return failure.backoff, failure.retry_after


def test_the_time_to_wait_comes_from_the_surest_source():
    """Milliseconds before seconds before words before reset headers before a schedule."""
    both = {"retry-after-ms": "1500", "retry-after": "9", "x-ratelimit-reset-tokens": "3s"}
    words = error("Please try again in 1.146s.")
    assert hint("openai", status=429, headers=both, body=words) == (Backoff.RETRY_AFTER, 1.5)
    assert hint("openai", status=429, body=words) == (Backoff.BODY, 1.146)
    spent = {
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert hint("openai", status=429, headers=spent) == (Backoff.HEADER, 360.0)
    assert hint("openai", status=429) == (Backoff.EXPONENTIAL, None)
    assert hint("openai", status=429, body=error(code="slow_down")) == (Backoff.LONG, None)


def test_google_trusts_the_body_before_the_header():
    """RetryInfo is the only time that Gemini documents."""
    body = violation("PerMinute", "34.07s")
    seen = {"status": 429, "headers": {"retry-after": "5"}, "body": body}
    assert hint("google", **seen) == (Backoff.BODY, 34.07)


def test_a_hint_on_a_failure_without_another_try_is_void():
    """OpenAI sends Retry-After also when the money is gone."""
    seen = {"status": 429, "headers": {"retry-after": "5"}, "body": error(code=MONEY)}
    assert hint("openai", **seen) == (Backoff.NONE, None)


def test_calendar_windows_end_where_the_provider_lives():
    """Gemini's day ends at midnight in California, Anthropic's month at midnight UTC."""
    source, wait = hint("google", status=429, body=violation("PerDay"))
    assert (source, wait) == (Backoff.WINDOW, 20 * 3600)
    source, wait = hint("cohere", status=402)
    assert (source, wait) == (Backoff.WINDOW, 5 * 86_400 + 12 * 3600)
    dated = error("You will regain access on 2025-12-01 at 00:00 UTC",
                  details={"error_code": "enforced_spend_limit_reached"})  # fmt: skip
    assert hint("anthropic", status=429, body=dated) == (Backoff.BODY, 5 * 86_400 + 12 * 3600)
    assert classify("cohere", status=402).retry_after is None  # nobody knows what time it is


def test_the_date_of_the_response_serves_as_a_clock():
    """A worker's own clock may be wrong; the provider's dates agree with each other."""
    headers = {
        "date": "Tue, 25 Nov 2025 12:00:00 GMT",
        "retry-after": "Tue, 25 Nov 2025 12:00:30 GMT",
    }
    assert classify("openai", status=429, headers=headers).retry_after == 30


def test_waiting_an_hour_is_a_reset_and_no_backoff():
    """Azure answers `retry after 86400` to what looks like a rate limit."""
    failure = classify("azure", status=429, headers={"retry-after": "86400"})
    assert (failure.retry, failure.retryable) == (Retry.RESET, False)
    assert classify("azure", status=429, headers={"retry-after": "60"}).retryable


def test_the_provider_may_overrule_the_table():
    """`x-should-retry` is about this very request."""
    assert not classify("openai", status=500, headers={"X-Should-Retry": "false"}).retryable
    assert classify("openai", status=400, headers={"x-should-retry": "true"}).retryable


def test_the_request_is_named_for_support():
    """Ids come from headers, else from the body."""
    assert classify("openai", status=500, headers={"x-request-id": "r1"}).request_id == "r1"
    body = {"type": "error", "error": {"type": "api_error"}, "request_id": "r2"}
    assert classify("anthropic", status=500, body=body).request_id == "r2"


def test_a_429_that_names_its_limit_calibrates_ours():
    """Limit, used and requested are exact figures from the provider's own books."""
    text = (
        "Rate limit reached for gpt-x in organization org-1 on tokens per min (TPM): "
        "Limit 50000, Used 47949, Requested 3006. Please try again in 1.146s."
    )
    limit = classify("groq", status=429, body=error(text, code="rate_limit_exceeded")).limit
    assert limit is not None
    assert (limit.meter, limit.per, limit.limit) == ("tokens", 60, 50_000)
    assert (limit.used, limit.requested, limit.model) == (47_949, 3006, "gpt-x")


def test_without_a_name_the_provider_is_detected():
    """A body in Anthropic's shape is read as Anthropic's."""
    body = {"type": "error", "error": {"type": "overloaded_error"}}
    assert classify(status=529, body=body).provider == "anthropic"
    assert classify("no such provider", status=429).provider == "generic"


KEYS = ["error", "message", "code", "status", "type", "details", "metadata", "response"]
KEYS += ["choices", "delta", "retryDelay", "violations", "availability", "headers"]
NAMES = ["retry-after", "retry-after-ms", "date", "x-ratelimit-reset", "ratelimit"]
NAMES += ["x-ratelimit-remaining", "anthropic-ratelimit-tokens-reset", "x-should-retry"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(
    provider=st.sampled_from(sorted(PROFILES)),
    status=st.none() | st.integers(-1, 1000),
    headers=st.dictionaries(
        st.sampled_from(NAMES),
        st.text(max_size=30) | st.floats().map(str) | st.integers().map(str),
    ),
    body=st.binary(max_size=60) | st.text(max_size=60) | JSON | JSON.map(json.dumps),
    stream=st.booleans(),
    now=st.none() | st.floats(0, 1e11),
)
def test_nothing_that_arrives_raises(**seen: Any):
    """Whatever a provider or a proxy sends, there is an answer, and its times are sane."""
    failure = classify(**seen)
    assert failure.retry_after is None or 0 <= failure.retry_after <= 400 * 86_400


def test_a_hostile_body_does_not_take_long():
    """Patterns see a bounded text, and none of them goes exponential."""
    for text in ("(1 " * 50_000, "retry in 1" + " 1s" * 50_000, "[" * 100_000, "a" * 10**7):
        assert classify("openai", status=400, body=text).category is Outcome.INVALID_REQUEST
