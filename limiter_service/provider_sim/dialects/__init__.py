"""How providers speak: one module each, with the same functions (`base.Dialect`)."""

from limiter_service.provider_sim.dialects import (
    anthropic,
    azure_chat,
    bedrock,
    cohere,
    gemini,
    mistral,
    ollama,
    openai_chat,
    openai_responses,
)
from limiter_service.provider_sim.dialects.base import Dialect, Frame, Place, Request

__all__ = ["ROUTES", "Dialect", "Frame", "Place", "Request"]

_DIALECTS: tuple[tuple[Dialect, str, tuple[str, ...]], ...] = (
    (openai_chat, "openai", ("/v1/chat/completions",)),
    (openai_responses, "openai", ("/v1/responses",)),
    (azure_chat, "azure", ("/openai/deployments/{deployment}/chat/completions",)),
    (anthropic, "anthropic", ("/v1/messages",)),
    (
        gemini,
        "gemini",
        (
            "/{version}/models/{model}:{verb}",
            "/v1/projects/{project}/locations/{place}/publishers/google/models/{model}:{verb}",
        ),
    ),
    (cohere, "cohere", ("/v2/chat",)),
    (bedrock, "bedrock", ("/model/{model:path}/{verb}",)),
    (ollama, "ollama", ("/api/chat",)),
)

ROUTES: tuple[tuple[Dialect, str], ...] = (
    *((dialect, path) for dialect, _, paths in _DIALECTS for path in paths),
    *((dialect, f"/{name}{path}") for dialect, name, paths in _DIALECTS for path in paths),
    # Its paths are OpenAI's: only the prefix tells them apart.
    (mistral, "/mistral/v1/chat/completions"),
)
"""Every dialect at its provider's own path, and below a prefix with the provider's name."""
