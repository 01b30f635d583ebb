"""How providers count: one module each, with the same functions (`base.Accounting`)."""

from limiter_service.provider_sim.accounting import (
    anthropic,
    azure,
    bedrock,
    cohere,
    gemini,
    mistral,
    ollama,
    openai,
    plain,
)
from limiter_service.provider_sim.accounting.base import Accounting, Sizes, Stamp
from limiter_service.provider_sim.options import Rules

__all__ = ["Accounting", "Sizes", "Stamp", "accounting_of"]

_MODULES: dict[Rules, Accounting] = {
    Rules.PLAIN: plain,
    Rules.OPENAI: openai,
    Rules.AZURE: azure,
    Rules.ANTHROPIC: anthropic,
    Rules.BEDROCK: bedrock,
    Rules.GEMINI: gemini,
    Rules.MISTRAL: mistral,
    Rules.COHERE: cohere,
    Rules.OLLAMA: ollama,
}


def accounting_of(rules: Rules) -> Accounting:
    """The module of some rules; `auto` has been replaced by those of a route."""
    return _MODULES[rules]
