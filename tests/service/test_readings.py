"""What headers say about the limits of a chain: which limit they mean, and what is left out."""

import pytest

from limiter_service.config import parse
from limiter_service.engine.policy import Policies, Policy
from limiter_service.engine.readings import Reading, asked_pause, bounds, readings
from limiter_wire import SpentLimit

LIMITS = """
      rpm: 600
      tpm: 60000
      limits:
        - {name: rpd, meter: requests, limit: 5000, per: day}
        - {name: in, meter: input_tokens, limit: 50000, per: minute}
        - {name: out, meter: output_tokens, limit: 10000, per: minute}
        - {name: monthly, meter: tokens, limit: 9000000, per: month, window: calendar}
        - {name: per-second, meter: tokens, limit: 900, per: second}
"""


def policy(provider: str) -> Policy:
    """The limits above at one provider."""
    text = f"pools:\n  p:\n    provider: {provider}\n    models:\n     m:{LIMITS}"
    return Policies(parse(text, ".yaml"), "sg:").policy("p/m", "t")


def said(provider: str, **headers: str) -> dict[str, tuple[float | None, float | None]]:
    """Limit and rest by the name of the limit that *headers* speak of."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    found = readings(policy(provider), names, None, 1_700_000_000.0)
    return {each.limit.config.name or "": (each.stated, each.remaining) for each in found}


def x(kind: str, limit: str | None = None, remaining: str | None = None) -> dict[str, str]:
    """OpenAI's family."""
    told = {"limit": limit, "remaining": remaining}
    return {f"x-ratelimit-{n}-{kind}": v for n, v in told.items() if v is not None}


def test_openai_speaks_of_requests_and_tokens_of_a_minute() -> None:
    """And not of the limits that count something else, or for another time."""
    headers = x("requests", "500", "499") | x("tokens", "30000", "28000")
    assert said("openai", **headers) == {"rpm": (500, 499), "tpm": (30_000, 28_000)}


def test_of_organization_and_project_the_stricter_counts() -> None:
    """A call has to fit both."""
    headers = x("tokens", "60000", "100") | x("project-tokens", "20000", "5000")
    assert said("openai", **headers) == {"tpm": (20_000, 100)}


def test_requests_of_groq_are_those_of_a_day() -> None:
    """The same names mean another time there."""
    headers = x("requests", "1000", "900") | x("tokens", "8000", "7000")
    assert said("groq", **headers) == {"rpd": (1000, 900), "tpm": (8000, 7000)}


def test_azure_does_not_know_what_is_below_zero() -> None:
    """-1 is no rest and no limit."""
    headers = x("requests", "-1", "-1") | x("tokens", "40000", "-1")
    assert said("azure", **headers) == {"tpm": (40_000, None)}


def test_what_anthropic_rounds_sets_no_level() -> None:
    """Its limits are exact; what remains is told in thousands, and `tokens` means another
    limit each time.
    """
    found = said(
        "anthropic",
        **{
            "anthropic-ratelimit-requests-limit": "1000",
            "anthropic-ratelimit-requests-remaining": "999",
            "anthropic-ratelimit-input-tokens-limit": "40000",
            "anthropic-ratelimit-input-tokens-remaining": "39000",
            "anthropic-ratelimit-output-tokens-limit": "8000",
            "anthropic-ratelimit-output-tokens-remaining": "8000",
            "anthropic-ratelimit-tokens-limit": "48000",
            "anthropic-ratelimit-tokens-remaining": "47000",
            "anthropic-fast-ratelimit-requests-limit": "5",
            "anthropic-priority-input-tokens-limit": "7",
        },
    )
    assert found == {"rpm": (1000, 999), "in": (40_000, None), "out": (8000, None)}


def test_mistral_speaks_of_minute_and_month() -> None:
    """Of tokens, by size."""
    headers = {
        "x-ratelimitbysize-limit-minute": "500000",
        "x-ratelimitbysize-remaining-minute": "480000",
        "x-ratelimitbysize-limit-month": "1000000000",
        "x-ratelimitbysize-remaining-month": "999",
        "ratelimitbysize-query-cost": "32007",
    }
    assert said("mistral", **headers) == {
        "tpm": (500_000, 480_000),
        "monthly": (1_000_000_000, 999),
    }


def test_cerebras_names_day_and_minute() -> None:
    """In the names of its headers."""
    headers = x("requests-day", "14400", "14000") | x("tokens-minute", "60000", "3000")
    assert said("cerebras", **headers) == {"rpd": (14_400, 14_000), "tpm": (60_000, 3000)}


def test_fireworks_counts_seconds() -> None:
    """Prompt and generated tokens of a second say nothing about those of a minute."""
    headers = x("tokens-prompt", "600", "10") | x("tokens-generated", "100", "10")
    assert said("fireworks", **headers) == {}


@pytest.mark.parametrize("provider", ["openrouter", "together", "cohere", "generic"])
def test_a_limit_without_meter_and_time_means_nothing(provider: str) -> None:
    """Nobody knows which one it is."""
    headers = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0"}
    assert said(provider, **headers) == {}


def test_names_are_read_in_any_case() -> None:
    """As HTTP has it."""
    found = readings(policy("openai"), {"X-RateLimit-Limit-Tokens": "30000"}, None, 0.0)
    assert [(each.limit.config.name, each.stated) for each in found] == [("tpm", 30_000)]


def test_what_is_no_number_says_nothing() -> None:
    """Nor does a limit of nothing: a model that an account may not use is an error's business."""
    assert said("openai", **x("tokens", "lots", "none")) == {}
    assert said("openai", **x("tokens", "0")) == {}
    assert said("openai", **x("tokens", "0", "0")) == {"tpm": (None, 0)}


def test_the_text_of_a_refusal_says_what_is_used() -> None:
    """What remains follows from it."""
    spent = SpentLimit(meter="tokens", per=60.0, limit=50_000, used=47_949, requested=3006)
    (found,) = readings(policy("openai"), {}, spent, 0.0)
    assert (found.limit.config.name, found.stated, found.remaining) == ("tpm", 50_000, 2051)


def limit_named(name: str, provider: str = "openai") -> Reading:
    """Some reading of a limit, for its limit."""
    chain = policy(provider)
    nth = next(i for i, limit in enumerate(chain.limits) if limit.config.name == name)
    return Reading(nth=nth + 1, limit=chain.limits[nth], stated=None, remaining=None)


def test_a_burst_of_seconds_shrinks_with_its_limit() -> None:
    """600 a minute, five in half a second; half of both, and never less than one call."""
    limit = limit_named("rpm").limit
    assert bounds(limit, 300.0) == (2.5, limit.rate / 2)
    assert bounds(limit, 6.0) == (1.0, limit.rate / 100)


def test_a_bucket_without_a_burst_holds_its_limit() -> None:
    """Whatever that is."""
    limit = limit_named("tpm").limit
    assert bounds(limit, 30_000.0) == (30_000.0, limit.rate / 2)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}, 10.0),
        ({"retry-after": "-1"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_pause_is_read_in_every_writing(
    headers: dict[str, str] | None, pause: float | None
) -> None:
    """Milliseconds before seconds before dates."""
    assert asked_pause(headers, 1_700_000_000.0) == pause
