"""A pool that names its provider counts as that provider counts; the file always wins."""

from typing import get_args

import pytest

from limiter_service.config import ConfigError, Reserve, parse
from limiter_service.config_advice import advice
from limiter_service.engine.charging import reserve, used
from limiter_service.engine.policy import Limit, Policies, Policy
from limiter_service.presets import limits_in_force
from limiter_service.store.messages import KEEP
from limiter_wire import Acquire, Outcome, Usage
from limiter_wire.providers import PROFILES, profiles
from limiter_wire.providers.presets import TIERS, ceiling

SPENT = Usage(input_tokens=1000, cache_read_tokens=400, output_tokens=200, reasoning_tokens=50)
ASKED = Acquire(resource="p/m", input_tokens=1000, max_output_tokens=4000)


def chain(pool: str, model: str = "m", tenant: str = "t") -> Policy:
    """The compiled chain of one model of a pool."""
    return Policies(parse(f"pools: {{p: {{{pool}}}}}", ".yaml"), "x:").policy(f"p/{model}", tenant)


def limits(pool: str, model: str = "m", tenant: str = "t") -> dict[str, Limit]:
    """The limits of that chain, by name."""
    return {limit.name: limit for limit in chain(pool, model, tenant).limits}


# Provider, model, limit; what a call holds at first, and what it has cost in the end.
COUNTED = [
    ("generic", "m", "tpm", 5000, 1200),
    ("openai", "m", "tpm", 4000, KEEP),  # the larger of both, and nothing comes back
    ("azure", "m", "tpm", 5000, KEEP),
    ("anthropic", "m", "input_tpm", 1000, 600),  # cache hits are free
    ("anthropic", "claude-3-5-haiku-x", "input_tpm", 1000, 1000),
    ("anthropic", "m", "output_tpm", 300, 200),  # as learned: 300
    ("google", "m", "tpm", 1000, 1000),  # input only
    ("vertex", "m", "tpm", 1300, 1200),
    ("bedrock", "m", "tpm", 5000, 800),  # held as it is; output weighs later
    ("bedrock", "us.anthropic.claude-sonnet-4-5-v1", "tpm", 5000, 600 + 200 * 5),
    ("bedrock", "anthropic.claude-opus-4-8", "tpm", 5000, 600 + 200 * 15),
    ("bedrock", "anthropic.claude-opus-5", "tpm", 5000, 600 + 200 * 10),
    ("mistral", "m", "tpm", 5000, KEEP),
    ("groq", "m", "tpm", 5000, 800),
    ("cerebras", "m", "tpm", 5000, KEEP),
    ("xai", "m", "tpm", 5000, 1200),
    ("azure", "claude-sonnet-4-5", "input_tpm", 1000, 600),  # Claude in Foundry: uncached input
    ("azure", "claude-sonnet-4-5", "output_tpm", 300, 200),
    ("vertex", "claude-sonnet-4-5", "input_tpm", 1000, 1000),
    ("vertex", "claude-sonnet-4-5", "output_tpm", 300, 200),
    ("bedrock", "m", "input_tpm", 5000, 600),  # its endpoint for separate limits
    ("bedrock", "m", "output_tpm", 300, 200),
    ("groq", "m", "input_tpm", 1000, 600),
    ("fireworks", "m", "input_tpm", 1000, 1000),
    ("fireworks", "m", "output_tpm", 300, 200),
    # Those that count calls, or calls at once, whatever their size.
    ("deepseek", "m", "concurrency", 1, KEEP),
    ("cohere", "m", "rpm", 1, KEEP),
    ("together", "m", "rpm", 1, KEEP),
    ("openrouter", "m", "rpd", 1, KEEP),
    ("ollama", "m", "concurrency", 1, KEEP),
    ("llamacpp", "m", "concurrency", 1, KEEP),
    ("vllm", "m", "concurrency", 1, KEEP),
    ("sglang", "m", "concurrency", 1, KEEP),
]


@pytest.mark.parametrize(("provider", "model", "limit", "held", "counted"), COUNTED)
def test_a_limit_counts_as_its_provider_does(
    provider: str, model: str, limit: str, held: int, counted: float
):
    """What is held at first, and what the call has cost in the end."""
    policy = chain(f'provider: {provider}, models: {{"*": {{{limit}: 100000}}}}', model)
    assert reserve(policy, ASKED, expected_output=300) == [held]
    assert used(policy, SPENT, None, Outcome.SUCCESS) == [counted]


def test_every_provider_and_every_charge_has_a_row():
    """Whoever adds a rule says what it holds and counts."""
    assert {row[0] for row in COUNTED} == set(PROFILES)
    meters = {"tpm": "tokens", "input_tpm": "input_tokens", "output_tpm": "output_tokens"}
    rules = {(name, charge.meter) for name, each in PROFILES.items() for charge in each.charges} - {
        ("google", "input_tokens")
    }  # the same as its tokens
    assert {(row[0], meters.get(row[2])) for row in COUNTED} >= rules


@pytest.mark.parametrize(
    ("provider", "limit", "window", "capacity"),
    [
        ("generic", "rpm: 600", "bucket", 600),
        ("openai", "rpm: 600", "bucket", 5),  # a second of requests, less half for their way
        ("openai", "rpm: 6", "bucket", 1),  # never less than one
        ("openai", "rpd: 600", "bucket", 600),
        ("openai", "tpm: 6000", "bucket", 5800),  # a minute of tokens, less two seconds
        ("openai", "tpd: 6000", "bucket", 6000),
        ("azure", "rpm: 600", "bucket", 1),  # fixed seconds, whose edge nobody sees
        ("mistral", "rpm: 600", "bucket", 1),
        ("mistral", "tpm: 6000", "sliding", 6000),
        ("anthropic", "input_tpm: 6000", "bucket", 5800),
        ("anthropic", "output_tpm: 6000", "bucket", 5400),  # less what calls under way will cost
        ("azure", "tpm: 6000", "sliding", 6000),  # fixed minutes, whose edge nobody sees
        ("google", "rpm: 600", "sliding", 600),
        ("google", "rpd: 600", "calendar", 600),
        ("vertex", "rpm: 600", "bucket", 100),
        ("openrouter", "rpd: 50", "calendar", 50),
        ("ollama", "rpm: 600", "bucket", 600),
    ],
)
def test_a_limit_has_the_window_of_its_provider(
    provider: str, limit: str, window: str, capacity: float
):
    """Burst and window of what the file gives in short."""
    (found,) = limits(f"provider: {provider}, models: {{m: {{{limit}}}}}").values()
    assert (found.window, found.capacity) == (window, capacity)


def test_a_day_of_gemini_ends_in_california():
    """Its zone is part of the preset, unless the file names another."""
    (limit,) = limits("provider: google, models: {m: {rpd: 9}}").values()
    assert limit.config.timezone == "America/Los_Angeles"
    own = "limits: [{meter: requests, limit: 9, per: 1d, timezone: Asia/Tokyo}]"
    (limit,) = limits(f"provider: google, models: {{m: {{{own}}}}}").values()
    assert (limit.config.per, limit.config.timezone) == ("day", "Asia/Tokyo")


def test_what_the_file_says_wins_field_by_field():
    """Window, burst, reserve, settle and single weights."""
    written = (
        "limits: [{meter: tokens, limit: 6000, per: minute, window: bucket, burst: 50,"
        " reserve: input, settle: actual}, {name: r, meter: requests, limit: 600, per: minute,"
        " window: calendar}, {name: b, meter: requests, limit: 600, per: minute, burst: 60}]"
    )
    tokens, requests, burst = limits(f"provider: azure, models: {{m: {{{written}}}}}").values()
    assert (tokens.window, tokens.capacity) == ("bucket", 50)
    assert (tokens.config.reserve, tokens.config.settle) == ("input", "actual")
    assert (requests.window, burst.capacity) == ("calendar", 60)
    weighed = "limits: [{meter: tokens, limit: 1, per: minute, weights: {output: 2}}]"
    (limit,) = limits(f"provider: groq, models: {{m: {{{weighed}}}}}").values()
    assert limit.config.weights == {"cache_read": 0.0, "output": 2.0}


def test_a_burst_in_the_file_makes_a_bucket():
    """Also where the provider's window would be another."""
    written = "limits: [{meter: tokens, limit: 6000, per: minute, burst: 50}]"
    (limit,) = limits(f"provider: azure, models: {{m: {{{written}}}}}").values()
    assert (limit.window, limit.capacity) == ("bucket", 50)


def test_budgets_of_tenants_are_our_own():
    """The provider knows nothing of tenants, so its rules do not shape their limits."""
    found = limits("provider: openai, models: {m: {}}, tenants: {t: {rpm: 600, tpm: 6000}}")
    assert found["t.rpm"].capacity == 600
    assert (found["t.tpm"].config.reserve, found["t.tpm"].config.settle) == (None, "actual")


def test_a_tier_gives_the_limits_of_models_that_have_none():
    """The first pattern that fits counts, and limits of one's own keep the preset away."""
    pool = 'provider: anthropic, tier: start, models: {"*": {}, claude-x: {rpm: 5}}'
    named = {name: limit.limit for name, limit in limits(pool, "claude-opus-5").items()}
    assert named == {
        "claude-opus-5.rpm": 1000,
        "claude-opus-5.input_tpm": 2_000_000,
        "claude-opus-5.output_tpm": 400_000,
    }
    assert limits(pool, "claude-fable-5")["claude-fable-5.input_tpm"].limit == 500_000
    assert list(limits(pool, "claude-x")) == ["claude-x.rpm"]
    assert limits(pool, "some-other") == {}


def test_limits_of_the_pool_do_not_keep_presets_away():
    """A budget of one's own stands beside the ceiling."""
    pool = "provider: deepseek, tier: standard, rpd: 5, models: {deepseek-flash: {}}"
    assert list(limits(pool, "deepseek-flash")) == ["p.rpd", "deepseek-flash.concurrency"]


def test_a_month_of_a_trial_is_a_calendar_month():
    """Cohere counts trial calls so."""
    found = limits("provider: cohere, tier: trial, models: {command-a: {}}", "command-a")
    month = found["command-a.requests-per-month"]
    assert (month.window, month.limit, month.config.per) == ("calendar", 1000, "month")


def test_without_a_tier_a_provider_limits_nothing():
    """Presets shape limits; only a tier adds any."""
    assert limits("provider: openai, models: {m: {}}") == {}


@pytest.mark.parametrize(
    ("pool", "path", "message"),
    [
        ("provider: opnai", "provider", "did you mean openai?"),
        ("provider: nobody", "provider", "allowed: openai, azure"),
        ("provider: openai, tier: gold", "tier", "known: build, launch, grow"),
        ("provider: vllm, tier: gold", "tier", "known: none, so give the limits"),
        ("tier: gold", "tier", "no known tier of generic"),
    ],
)
def test_an_unknown_provider_or_tier_is_refused(pool: str, path: str, message: str):
    """A typo would silently count otherwise than the provider."""
    with pytest.raises(ConfigError) as refused:
        parse(f"pools: {{p: {{{pool}}}}}", ".yaml")
    (problem,) = refused.value.problems
    assert problem.path == f"pools.p.{path}"
    assert message in problem.message


def test_other_names_of_providers_are_understood():
    """People say Gemini and mean the provider."""
    (limit,) = limits("provider: gemini, models: {m: {rpd: 9}}").values()
    assert limit.window == "calendar"


def test_a_model_without_limits_and_figures_is_pointed_out():
    """check-config says so; a pattern may fit what has figures."""
    text = 'pools: {p: {provider: openai, tier: grow, models: {gpt-4o: {}, gpt-6-x: {}, "*": {}}}}'
    (line,) = advice(parse(text, ".yaml"))
    assert line == "pools.p.models.gpt-4o: no limits, and tier grow has no figures for it"


def test_every_preset_is_a_limit_that_the_file_could_say():
    """Each tier of each provider compiles for each of its patterns."""
    for provider, tiers in TIERS.items():
        assert provider in PROFILES
        for tier, ceilings in tiers.items():
            config = parse(f"pools: {{p: {{provider: {provider}, tier: {tier}}}}}", ".yaml")
            for each in ceilings:
                model = each.models.replace("*", "x") if each.models != "*" else "any"
                pool = config.pools["p"]
                made = limits_in_force(pool, "model", model, config.pools["p"])
                assert made, (provider, tier, model)
                assert ceiling(provider, tier, model) is not None


def test_profiles_say_what_the_file_can_say():
    """Their words for reservations are the configuration's."""
    assert set(get_args(profiles.Reserve)) == set(get_args(Reserve))
