"""Where prices come from: the pools file, a price file, a library."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limiter_service.config import ConfigError, load, parse
from limiter_service.engine.policy import Policies
from limiter_service.pools import Pools
from limiter_service.prices import Catalogue, PriceConfig, PriceFileError, price_of_entry

ENTRY = {
    "input_cost_per_token": 2.5e-06,
    "output_cost_per_token": "1e-05",
    "cache_read_input_token_cost": 1.25e-06,
    "max_tokens": 16384,
    "litellm_provider": "openai",
    "mode": "chat",
    "supports_vision": True,
}
LISTED = {
    "sample_spec": {"input_cost_per_token": 0.0, "max_tokens": "what it is"},
    "gpt-x": ENTRY,
    "azure/gpt-x": {**ENTRY, "input_cost_per_token": 3e-06},
    "gemini/long-1": {
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
    },
    "painter": {"output_cost_per_image": 0.04, "mode": "image_generation"},
    "broken": "a text",
}
MONEY = "{limits: [{meter: cost_usd, limit: 1, per: day}]}"


def test_an_entry_is_read_without_noise():
    """Dollars per token become dollars per million exactly; texts and other fields do not hurt."""
    found = price_of_entry(ENTRY)
    assert found == PriceConfig(input=2.5, output=10, cache_read=1.25)
    assert price_of_entry({"input_cost_per_token": 1e-07}) == PriceConfig(input=0.1, output=0)
    assert price_of_entry({"input_cost_per_token": 4.35e-05}) == PriceConfig(input=43.5, output=0)
    reasoning = {**ENTRY, "output_cost_per_reasoning_token": 2e-05}
    reasoned = price_of_entry(reasoning)
    assert reasoned is not None
    assert reasoned.reasoning == 20


@pytest.mark.parametrize(
    "entry",
    [
        *(None, [], "text", {}, LISTED["painter"]),
        *({"input_cost_per_token": wrong} for wrong in (None, True, "dear", -1.0, 1e9, "nan")),
    ],
)
def test_what_is_no_price_is_none(entry: Any):
    """A model that is not sold by tokens has no price, nor has one with a senseless figure."""
    assert price_of_entry(entry) is None


def test_long_inputs_have_their_own_price_in_a_file():
    """What the file does not repeat is as for short ones."""
    found = price_of_entry({**LISTED["gemini/long-1"], "cache_read_input_token_cost": 1e-07})  # type: ignore[dict-item]  # an entry
    assert found is not None
    assert found.long is not None
    assert (found.long.above, found.long.input, found.long.output) == (200_000, 2.5, 15)
    assert found.long.cache_read == found.cache_read == 0.1


@pytest.mark.parametrize(
    ("provider", "model", "price"),
    [
        ("openai", "gpt-x", 2.5),
        ("azure", "gpt-x", 3),
        ("azure-openai", "gpt-x", 3),  # another name of it
        ("generic", "gpt-x", 2.5),
        ("google", "long-1", 1.25),
        ("google", "gemini/long-1", 1.25),
        ("openai", "nobody", None),
        ("openai", "painter", None),
        ("openai", "broken", None),
    ],
)
def test_a_file_is_asked_by_provider_and_model(provider: str, model: str, price: float | None):
    """The provider's own entry goes first."""
    found = Catalogue(LISTED).price(provider, model)
    assert (found.input if found else None) == price


def test_what_was_asked_for_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch):
    """Callers make up the names of models."""
    monkeypatch.setattr("limiter_service.prices._MOST_KNOWN", 10)
    catalogue = Catalogue(LISTED)
    for i in range(95):
        assert catalogue.price("openai", f"m{i}") is None
    assert len(catalogue._known) <= 10


@pytest.mark.skipif(
    importlib.util.find_spec("genai_prices") is None, reason="genai-prices is not installed"
)
def test_the_library_knows_the_usual_models():
    """Cached and long prices included; its names of providers are not ours."""
    catalogue = Catalogue(library=True).warm()
    plain, tiered = catalogue.price("openai", "gpt-4o"), catalogue.price("google", "gemini-2.5-pro")
    assert plain is not None
    assert tiered is not None
    assert (plain.input, plain.output, plain.cache_read) == (2.5, 10, 1.25)
    assert tiered.long is not None
    assert (tiered.input, tiered.long.above, tiered.long.input) == (1.25, 200_000, 2.5)
    assert catalogue.price("xai", "grok-4") is not None
    assert catalogue.price("openai", "no-such-model") is None
    assert Catalogue(LISTED, library=True).price("azure", "gpt-4o") is not None


@pytest.mark.skipif(
    importlib.util.find_spec("genai_prices") is None, reason="genai-prices is not installed"
)
def test_the_library_remembers_no_more_names_than_we_do(monkeypatch: pytest.MonkeyPatch):
    """It keeps every model that it was ever asked for, found or not; here it is asked anew."""
    snapshots = importlib.import_module("genai_prices.data_snapshot")

    def remembered(snapshot: object) -> int:
        kept = [each for each in vars(snapshot).values() if isinstance(each, dict | set)]
        return sum(len(each) for each in kept)

    monkeypatch.setattr("limiter_service.prices._MOST_KNOWN", 10)
    before = remembered(snapshots.get_snapshot())
    catalogue = Catalogue(library=True)
    for i in range(95):
        catalogue.price("generic", f"no-such-model-{i}")
        catalogue.price("openai", f"gpt-4o-{i}")
    assert remembered(snapshots.get_snapshot()) == before
    assert 0 < remembered(catalogue._asked) <= 30


def chain_price(text: str, model: str = "m", **listed: Any) -> PriceConfig | None:
    """The price that a chain of p/MODEL has."""
    catalogue = Catalogue(listed)
    return Policies(parse(text, ".yaml"), "x:", catalogue=catalogue).policy(f"p/{model}", "t").price


def test_the_pools_file_goes_first():
    """Then the catalogue; a model that nobody knows has no price."""
    text = "pools: {p: {models: {'*': {}}, prices: {m: {input: 1, output: 2}}}}"
    assert chain_price(text, m=ENTRY) == PriceConfig(input=1, output=2)
    listed = chain_price(text, "n", n=ENTRY)
    assert listed is not None
    assert listed.input == 2.5
    assert chain_price(text, "o", n=ENTRY) is None


@pytest.mark.parametrize(
    ("pool", "path"),
    [
        (f"models: {{m: {MONEY}}}", "pools.p.models.m"),
        ("models: {m: {}}, limits: [{meter: cost_usd, limit: 1, per: day}]", "pools.p.models.m"),
        (f"models: {{m: {{}}}}, tenants: {{t: {MONEY}}}", "pools.p.models.m"),
        (f"models: {{m: {{}}}}, tenants: {{t: {{models: {{'*': {MONEY}}}}}}}", "pools.p.models.m"),
        (f"models: {{m: {MONEY}}}, prices: {{n: {{input: 1, output: 1}}}}", "pools.p.models.m"),
    ],
)
def test_money_without_a_price_is_refused(pool: str, path: str):
    """Wherever the limit stands: the model's path, and the remedies."""
    with pytest.raises(ConfigError) as caught:
        parse(f"pools: {{p: {{{pool}}}}}", ".yaml")
    (problem,) = caught.value.problems
    assert problem.path == path
    assert problem.message.startswith("cost_usd-per-day counts money, and the model has no price")
    parse(f"pools: {{p: {{{pool}, cost_in_requests: true}}}}", ".yaml")


@pytest.mark.parametrize(
    "pool",
    [
        f"models: {{m: {MONEY}}}, prices: {{'*': {{input: 1, output: 1}}}}",
        f"models: {{'m-*': {MONEY}}}, prices: {{'m*': {{input: 1, output: 1}}}}",
        "models: {m: {tpm: 9}}",
    ],
)
def test_money_with_a_price_is_good(pool: str):
    """A pattern's price counts for models and for narrower patterns."""
    parse(f"pools: {{p: {{{pool}}}}}", ".yaml")


@pytest.fixture
def priced(write_config: Callable[[str], Path]) -> Path:
    """A pools file with a price file beside it."""
    path = write_config(
        f"price_file: prices.json\npools: {{p: {{provider: openai, models: {{gpt-x: {MONEY}}}}}}}"
    )
    (path.parent / "prices.json").write_text(json.dumps(LISTED))
    return path


def test_a_price_file_stands_beside_the_pools_file(priced: Path):
    """Its prices are those of the pools' models."""
    load(priced)
    found = Pools(priced).catalogue.price("openai", "gpt-x")
    assert found is not None
    assert found.input == 2.5


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_price_file_that_cannot_be_read_is_a_problem(priced: Path, text: str):
    """With its path in the file, like any other."""
    prices = priced.parent / "prices.json"
    prices.write_text(text)
    with pytest.raises(ConfigError, match=r"price_file: .*prices\.json"):
        load(priced)
    prices.unlink()
    with pytest.raises(ConfigError, match="price_file"):
        load(priced)
    with pytest.raises(PriceFileError):
        Catalogue.of(prices)


def test_a_reload_takes_new_prices(priced: Path):
    """And keeps what is in force when they are refused."""
    pools, prices = Pools(priced), priced.parent / "prices.json"
    prices.write_text(json.dumps({"gpt-x": {**ENTRY, "input_cost_per_token": 5e-06}}))
    assert pools.reload().accepted
    found = pools.catalogue.price("openai", "gpt-x")
    assert found is not None
    assert found.input == 5
    prices.write_text("{}")
    assert not pools.reload().accepted
    assert pools.catalogue.price("openai", "gpt-x") == found


def test_a_price_file_is_watched_too(priced: Path):
    """Its text is compared like that of the pools file."""
    pools = Pools(priced)
    before = pools._texts()
    (priced.parent / "prices.json").write_text(json.dumps({**LISTED, "other": ENTRY}))
    assert pools._texts() != before
