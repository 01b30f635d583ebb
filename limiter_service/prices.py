"""What tokens cost: the prices of the pools file, and where they come from otherwise.

A model's price is that of the pool's `prices`; else that of the price file, in the format of
LiteLLM's `model_prices_and_context_window.json`; else that of the library `genai-prices`,
where it is installed (the extra `cost`). Nothing is fetched.
"""

import importlib
import importlib.util
import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from limiter_wire import MAX_AMOUNT
from limiter_wire.providers import known_provider

Price = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]


class LongPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens of a request whose input is long."""

    above: Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]
    """Input of more tokens than this makes the whole request cost so much."""
    input: Price
    """Fresh input."""
    output: Price
    """Output; reasoning too, unless it has a price of its own."""
    cache_read: Price | None = None
    """Input read from the provider's cache. Default: as `input`."""
    cache_write: Price | None = None
    """Input written to the provider's cache. Default: as `input`."""
    reasoning: Price | None = None
    """Hidden output. Default: as `output`."""

    @property
    def price(self) -> "PriceConfig":
        """The same as a price."""
        return PriceConfig(
            input=self.input,
            output=self.output,
            cache_read=self.cache_read,
            cache_write=self.cache_write,
            reasoning=self.reasoning,
        )


class PriceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens of a model."""

    input: Price
    """Fresh input."""
    output: Price
    """Output; reasoning too, unless it has a price of its own."""
    cache_read: Price | None = None
    """Input read from the provider's cache. Default: as `input`."""
    cache_write: Price | None = None
    """Input written to the provider's cache. Default: as `input`."""
    reasoning: Price | None = None
    """Hidden output. Default: as `output`."""
    long: LongPrice | None = None
    """Prices of requests with a long input, where they differ."""


class PriceFileError(ValueError):
    """A price file that cannot be read."""


class Catalogue:
    """Prices by provider and model, from a file's entries and from the library."""

    def __init__(self, entries: Mapping[str, Any] | None = None, *, library: bool = False) -> None:
        """*entries* are those of a price file; *library*: whether `genai-prices` is asked too."""
        self._entries, self._library = entries or {}, library
        self._known: dict[tuple[str, str], PriceConfig | None] = {}
        self._asked: Any = None

    @classmethod
    def of(cls, path: Path | None) -> "Catalogue":
        """The price file at *path* and the library, as far as there are any. Raises
        PriceFileError.
        """
        entries = None if path is None else _entries(path)
        return cls(entries, library=importlib.util.find_spec("genai_prices") is not None)

    def warm(self) -> "Catalogue":
        """Load the library now, not when a caller waits for it."""
        if self._library:
            self._asked = _prices_of_library()
        return self

    @property
    def empty(self) -> bool:
        """Whether it has no prices at all."""
        return not self._entries and not self._library

    def price(self, provider: str, model: str) -> PriceConfig | None:
        """The price of *model* at *provider*; None when nobody knows one."""
        name = known_provider(provider) or "generic", model
        if name not in self._known:
            if len(self._known) >= _MOST_KNOWN:  # callers choose models: bounded
                self._known.clear()
                self._asked = None
            self._known[name] = self._listed(*name) or self._in_library(*name)
        return self._known[name]

    def _listed(self, provider: str, model: str) -> PriceConfig | None:
        theirs = _IN_FILE.get(provider, (provider,))
        for name in (*(f"{each}/{model}" for each in theirs), model):
            if name in self._entries:
                return price_of_entry(self._entries[name])
        return None

    def _in_library(self, provider: str, model: str) -> PriceConfig | None:
        if not self._library:
            return None
        if self._asked is None:
            self._asked = _prices_of_library()
        usage = _library().Usage(input_tokens=1, output_tokens=1)
        theirs = _IN_LIBRARY.get(provider, provider)
        try:
            found = self._asked.calc(
                usage, model, None if theirs == "generic" else theirs, None, None
            )
        except (LookupError, ValueError):
            return None
        return _price_in_library(found.model_price)


_MOST_KNOWN = 10_000

# Our names of providers, and theirs where they differ.
_IN_FILE = {
    "azure": ("azure", "azure_ai"),
    "google": ("gemini",),
    "vertex": ("vertex_ai",),
    "bedrock": ("bedrock", "bedrock_converse"),
    "cohere": ("cohere", "cohere_chat"),
    "together": ("together_ai",),
    "fireworks": ("fireworks_ai",),
    "vllm": ("hosted_vllm",),
}
_IN_LIBRARY = {"vertex": "google", "bedrock": "aws", "xai": "x-ai"}


def _entries(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PriceFileError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise PriceFileError(f"{path}: a price file is an object with an entry for each model")
    return found


@cache
def _library() -> Any:  # a module without a protocol
    return importlib.import_module("genai_prices")


def _prices_of_library() -> Any:  # likewise
    """All its prices, and no model that was asked for: it remembers each for ever."""
    snapshots = importlib.import_module("genai_prices.data_snapshot")
    all_prices = snapshots.get_snapshot().providers
    return snapshots.DataSnapshot(providers=all_prices, from_auto_update=False)


_LONG = re.compile(r"(.+)_above_(\d+)k_tokens")
_FIELDS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
}


def price_of_entry(entry: Any) -> PriceConfig | None:  # whatever the file holds
    """The price that an entry of a price file tells, in dollars per million tokens; None for
    what is not sold by tokens.
    """
    if not isinstance(entry, Mapping):
        return None
    plain: dict[str, float] = {}
    long: dict[int, dict[str, float]] = {}
    for name, value in entry.items():
        dollars = _per_million(value)
        beyond = _LONG.fullmatch(name)
        if dollars is None:
            continue
        if name in _FIELDS:
            plain[_FIELDS[name]] = dollars
        elif beyond is not None and beyond[1] in _FIELDS:
            long.setdefault(int(beyond[2]) * 1000, {})[_FIELDS[beyond[1]]] = dollars
    if "input" not in plain:
        return None
    plain.setdefault("output", 0.0)  # embeddings
    above = min(long, default=None)
    return _price(plain, above, long.get(above or 0, {}))


def _price(
    plain: Mapping[str, float], above: int | None, long: Mapping[str, float]
) -> PriceConfig | None:
    try:
        dear = None if above is None else {"above": above, **plain, **long}
        return msgspec.convert({**plain, "long": dear}, PriceConfig)
    except msgspec.ValidationError:
        return None  # a price that no model has


def _per_million(value: Any) -> float | None:
    """Dollars per million tokens from dollars per token, without the noise of a product."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(Decimal(str(value)).scaleb(6))
    except InvalidOperation:
        return None


_LIBRARY_FIELDS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "output_reasoning_mtok": "reasoning",
}


def _price_in_library(found: Any) -> PriceConfig | None:
    plain: dict[str, float] = {}
    long: dict[str, float] = {}
    above: int | None = None
    for name, field in _LIBRARY_FIELDS.items():
        value = getattr(found, name, None)
        if value is None:
            continue
        tiers = getattr(value, "tiers", None)
        if tiers:
            first = min(tiers, key=lambda tier: tier.start)
            above = int(first.start) if above is None else min(above, int(first.start))
            long[field] = float(first.price)
        plain[field] = float(getattr(value, "base", value))
    if "input" not in plain:
        return None
    plain.setdefault("output", 0.0)
    return _price(plain, above, long)
