"""What a call of a framework's model asks for: who it is for, and how large it is. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from client_sdk.estimate import Estimator


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One call that is about to be made."""

    resource: str
    input_tokens: int
    max_output_tokens: int | None = None

    def options(self) -> dict[str, Any]:
        """As keywords of `acquire`."""
        return {"input_tokens": self.input_tokens, "max_output_tokens": self.max_output_tokens}


_estimator = Estimator()
_POOLS = {"google_genai": "google", "google_vertexai": "vertex", "azure_openai": "azure"}
_POOLS |= {"amazon_bedrock": "bedrock", "mistralai": "mistral", "gemini": "google"}


def plan(
    *,
    resource: str | None,
    provider: str,
    model: str,
    messages: Iterable[Mapping[str, Any]],
    tools: Iterable[Mapping[str, Any]] | None = None,
    max_output_tokens: object = None,
) -> Plan:
    """A plan for *messages*; the resource is made of provider and model where none is given."""
    guess = _estimator.request(messages, model, tools=tools)
    most = max_output_tokens
    return Plan(
        resource=resource or f"{_POOLS.get(provider, provider)}/{model}",
        input_tokens=max(1, guess.tokens),
        max_output_tokens=most if isinstance(most, int) and most > 0 else None,
    )
