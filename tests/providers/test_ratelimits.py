"""Limits as response headers tell them, family by family."""

import pytest

from limiter_wire.providers import Observed, profile, read_limits

NOW = 1_764_072_000.0  # 2025-11-25 12:00 UTC


def told(provider: str, **headers: str) -> list[Observed]:
    """What the headers say, by the provider's convention; `_` stands for a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_limits(named, NOW, profile(provider).convention)


def test_openai_tells_requests_and_tokens_of_a_minute():
    """Resets are durations."""
    requests, tokens = told(
        "openai",
        x_ratelimit_limit_requests="500",
        x_ratelimit_limit_tokens="30000",
        x_ratelimit_remaining_requests="499",
        x_ratelimit_remaining_tokens="29000",
        x_ratelimit_reset_requests="120ms",
        x_ratelimit_reset_tokens="6m0s",
    )
    assert requests == Observed(
        dimension="requests",
        meter="requests",
        per=60,
        limit=500,
        remaining=499,
        reset_after=0.12,
        reset_at=NOW + 0.12,
    )
    assert (tokens.meter, tokens.per, tokens.reset_after) == ("tokens", 60, 360)


def test_a_project_has_its_own_tokens():
    """OpenAI's `project-tokens` is another limit on the same meter."""
    (limit,) = told("openai", x_ratelimit_limit_project_tokens="9")
    assert (limit.dimension, limit.meter) == ("project-tokens", "tokens")


def test_requests_of_groq_are_those_of_a_day():
    """The same header as OpenAI's, with another meaning."""
    (limit,) = told(
        "groq", x_ratelimit_limit_requests="14400", x_ratelimit_reset_requests="2m59.56s"
    )
    assert (limit.per, limit.reset_after) == (86_400, 179.56)


def test_azure_says_minus_one_for_unknown():
    """What is not known sets nothing."""
    (limit,) = told("azure", x_ratelimit_remaining_tokens="-1", x_ratelimit_reset_tokens="-1")
    assert (limit.remaining, limit.reset_after, limit.trusted) == (None, None, False)


def test_cerebras_names_the_period():
    """Seconds with a fraction, by day and by minute."""
    day, minute = told(
        "cerebras",
        x_ratelimit_remaining_requests_day="0",
        x_ratelimit_reset_requests_day="33011.38",
        x_ratelimit_remaining_tokens_minute="5",
    )
    assert (day.meter, day.per, day.reset_after) == ("requests", 86_400, 33_011.38)
    assert (minute.meter, minute.per) == ("tokens", 60)


def test_anthropic_rounds_what_remains_and_resets_when_full():
    """A rounded level clamps nothing; requests are exact."""
    requests, tokens, priority = told(
        "anthropic",
        anthropic_ratelimit_requests_remaining="49",
        anthropic_ratelimit_input_tokens_limit="50000",
        anthropic_ratelimit_input_tokens_remaining="12000",
        anthropic_ratelimit_input_tokens_reset="2025-11-25T12:00:30Z",
        anthropic_priority_input_tokens_remaining="1000",
    )
    assert (requests.meter, requests.trusted, requests.full_reset) == ("requests", True, False)
    assert (tokens.meter, tokens.trusted, tokens.full_reset) == ("input_tokens", False, True)
    assert (tokens.limit, tokens.reset_after) == (50_000, 30)
    assert (priority.dimension, priority.meter) == ("priority:input-tokens", "input_tokens")


def test_mistral_counts_by_size():
    """Two spellings of one family; a month has no fixed length."""
    minute, month = told(
        "mistral",
        x_ratelimitbysize_limit_minute="500000",
        x_ratelimitbysize_remaining_month="99",
        ratelimitbysize_remaining="400000",
        ratelimitbysize_reset="17",
        ratelimitbysize_query_cost="32007",
    )
    assert (minute.meter, minute.per, minute.limit) == ("tokens", 60, 500_000)
    assert (minute.remaining, minute.reset_after) == (400_000, 17)
    assert (month.per, month.remaining) == (None, 99)


def test_fireworks_counts_by_the_second():
    """Prompt and generated tokens apart; the mark of an overrun is no limit."""
    prompt, generated = told(
        "fireworks",
        x_ratelimit_limit_tokens_prompt="60000",
        x_ratelimit_limit_tokens_generated="600",
        x_ratelimit_over_limit="yes",
    )
    assert (prompt.meter, prompt.per) == ("input_tokens", 1)
    assert (generated.meter, generated.per) == ("output_tokens", 1)


@pytest.mark.parametrize(
    ("provider", "reset", "after"),
    [("cohere", "1764072030", 30), ("together", "7", 7), ("openrouter", "1764072030500", 30.5)],
)
def test_a_bare_reset_is_told_by_its_size(provider: str, reset: str, after: float):
    """Seconds, Unix seconds and Unix milliseconds under one name."""
    (limit,) = told(provider, x_ratelimit_reset=reset)
    assert (limit.meter, limit.reset_after, limit.trusted) == ("requests", after, False)


def test_the_standard_fields_are_read():
    """As our own service sends them."""
    (limit,) = told(
        "generic",
        ratelimit='"m.tpm";r=50;t=30',
        ratelimit_policy='"m.tpm";q=100;w=60;qu="tokens"',
    )
    assert (limit.dimension, limit.meter, limit.per) == ("m.tpm", "tokens", 60)
    assert (limit.limit, limit.remaining, limit.reset_after) == (100, 50, 30)


def test_numbers_that_are_none_are_not_believed():
    """Nothing raises, and nothing is guessed."""
    (limit,) = told("openai", x_ratelimit_limit_tokens="many", x_ratelimit_remaining_tokens="NaN")
    assert (limit.limit, limit.remaining, limit.trusted) == (None, None, False)
    assert told("openai", content_type="text/plain", x_ratelimit="7") == []
