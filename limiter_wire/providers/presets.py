"""Ceilings that providers publish for their tiers: where to start, until headers correct it.

Figures change within a year, also in name; `AS_OF` of the profiles is their date. A model
that no pattern of its tier fits has no preset.
"""

from fnmatch import fnmatchcase
from typing import Literal

import msgspec

Basis = Literal["documented", "reported"]


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """What one tier allows the models of a pattern, by the names of the pools file."""

    models: str = "*"
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None
    concurrency: int | None = None
    requests_per_month: int | None = None
    basis: Basis = "documented"

    def amounts(self) -> dict[str, int]:
        """What is limited, by name."""
        fields = msgspec.structs.asdict(self)
        return {name: value for name, value in fields.items() if isinstance(value, int)}


TIERS: dict[str, dict[str, tuple[Ceiling, ...]]] = {
    "openai": {
        "build": (Ceiling(models="gpt-6*", rpm=5000, tpm=1_000_000, basis="reported"),),
        "launch": (Ceiling(models="gpt-6*", rpm=10_000, tpm=4_000_000, basis="reported"),),
        "grow": (Ceiling(models="gpt-6*", rpm=15_000, tpm=40_000_000, basis="reported"),),
    },
    "anthropic": {
        "start": (
            Ceiling(models="claude-fable-5*", rpm=1000, input_tpm=500_000, output_tpm=100_000),
            Ceiling(models="claude-*", rpm=1000, input_tpm=2_000_000, output_tpm=400_000),
        ),
        "build": (
            Ceiling(models="claude-fable-5*", rpm=2000, input_tpm=1_500_000, output_tpm=300_000),
            Ceiling(models="claude-*", rpm=5000, input_tpm=5_000_000, output_tpm=1_000_000),
        ),
        "scale": (
            Ceiling(models="claude-fable-5*", rpm=4000, input_tpm=4_000_000, output_tpm=800_000),
            Ceiling(models="claude-*", rpm=10_000, input_tpm=10_000_000, output_tpm=2_000_000),
        ),
    },
    "google": {
        "free": (Ceiling(models="gemini-3.5-flash*", rpm=5, rpd=20, basis="reported"),),
    },
    # By what the organization spent in 30 days: from 10, 250 and 2,000 dollars.
    "vertex": {
        "tier-1": (
            Ceiling(models="*flash*", tpm=2_000_000),
            Ceiling(models="*pro*", tpm=500_000),
        ),
        "tier-2": (
            Ceiling(models="*flash*", tpm=4_000_000),
            Ceiling(models="*pro*", tpm=1_000_000),
        ),
        "tier-3": (
            Ceiling(models="*flash*", tpm=10_000_000),
            Ceiling(models="*pro*", tpm=2_000_000),
        ),
    },
    "groq": {
        "base": tuple(
            Ceiling(models=models, rpm=30, rpd=1000, tpm=8000, tpd=200_000)
            for models in ("*gpt-oss-*", "*qwen3.8-27b*")
        ),
    },
    # Published as requests per second; the lowest and the highest of six steps.
    "xai": {
        "lowest": (
            Ceiling(models="grok-4.6*", rpm=150 * 60, tpm=50_000_000),
            Ceiling(models="grok-4.3*", rpm=37 * 60, tpm=10_000_000),
        ),
        "highest": (
            Ceiling(models="grok-4.6*", rpm=500 * 60, tpm=100_000_000),
            Ceiling(models="grok-4.3*", rpm=208 * 60, tpm=85_000_000),
        ),
    },
    "deepseek": {
        "standard": (
            Ceiling(models="deepseek-flash*", concurrency=2500),
            Ceiling(models="*v4-pro*", concurrency=500),
        ),
    },
    "cohere": {
        "trial": (
            Ceiling(models="rerank*", rpm=10, requests_per_month=1000),
            Ceiling(models="command*", rpm=20, tpm=100_000, requests_per_month=1000),
        ),
        "production": (
            Ceiling(models="rerank*", rpm=1000),
            Ceiling(models="command*", rpm=500),
        ),
    },
    "fireworks": {
        "start": (Ceiling(input_tpm=3_600_000, output_tpm=36_000),),
    },
    "openrouter": {
        "free": (Ceiling(models="*:free", rpm=20, rpd=50),),
        "free-with-credits": (Ceiling(models="*:free", rpm=20, rpd=1000),),
    },
    "ollama": {
        "default": (Ceiling(concurrency=1),),
    },
}
"""Ceilings by provider and tier; of several patterns that fit, the first counts."""


def tiers_of(provider: str) -> tuple[str, ...]:
    """The tiers of *provider* that have figures."""
    return tuple(TIERS.get(provider, ()))


def ceiling(provider: str, tier: str, model: str) -> Ceiling | None:
    """What *tier* allows *model*; None where no figure is known."""
    for found in TIERS.get(provider, {}).get(tier, ()):
        if fnmatchcase(model.lower(), found.models):
            return found
    return None
