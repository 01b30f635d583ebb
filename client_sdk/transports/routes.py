"""Which requests of a provider's API are calls of a model, by method and path. Pure.

What is not listed here costs no budget: lists of models, files, batches, counting tokens.
"""

import re
from typing import Literal
from urllib.parse import unquote

import msgspec

Kind = Literal["chat", "input"]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One way to call a model.

    `dialect` is that of its streams. A call of kind `input` generates no tokens. `provider`
    is whose API has such paths, None where many have; `streams` says that the path itself
    asks for a stream.
    """

    dialect: str
    kind: Kind = "chat"
    provider: str | None = None
    streams: bool = False


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A route, and the model that the path names."""

    route: Route
    model: str | None = None


_MODEL = r"(?P<model>[^/]+(?:/[^/]+)*?)"
_TABLE: tuple[tuple[str, Route], ...] = (
    # A deployment is what Azure limits; the body may name it otherwise.
    (r"/deployments/(?P<model>[^/]+)/(?:chat/)?completions", Route(dialect="openai-chat")),
    (r"/deployments/(?P<model>[^/]+)/embeddings", Route(dialect="openai-chat", kind="input")),
    (r"/(?:chat|fim|agents)/completions", Route(dialect="openai-chat")),
    (r"/(?:v\d+|openai|beta)/completions", Route(dialect="openai-chat")),
    (r"/responses", Route(dialect="openai-responses")),
    (r"/(?:embeddings|images/generations|audio/speech)", Route(dialect="unknown", kind="input")),
    (r"/v1/messages", Route(dialect="anthropic", provider="anthropic")),
    (
        rf"/publishers/anthropic/models/{_MODEL}:rawPredict",
        Route(dialect="anthropic", provider="vertex"),
    ),
    (
        rf"/publishers/anthropic/models/{_MODEL}:streamRawPredict",
        Route(dialect="anthropic", provider="vertex", streams=True),
    ),
    (rf"/models/{_MODEL}:generateContent", Route(dialect="gemini", provider="google")),
    (
        rf"/models/{_MODEL}:streamGenerateContent",
        Route(dialect="gemini", provider="google", streams=True),
    ),
    (
        rf"/models/{_MODEL}:(?:embedContent|batchEmbedContents|predict)",
        Route(dialect="gemini", kind="input", provider="google"),
    ),
    (r"/v[12]/chat", Route(dialect="cohere", provider="cohere")),
    (r"/v[12]/(?:embed|rerank)", Route(dialect="cohere", kind="input", provider="cohere")),
    (r"/api/(?:chat|generate)", Route(dialect="ollama", provider="ollama")),
    (r"/api/(?:embed|embeddings)", Route(dialect="ollama", kind="input", provider="ollama")),
    (rf"/model/{_MODEL}/converse", Route(dialect="bedrock", provider="bedrock")),
    (
        rf"/model/{_MODEL}/converse-stream",
        Route(dialect="bedrock", provider="bedrock", streams=True),
    ),
    (rf"/model/{_MODEL}/invoke", Route(dialect="bedrock", provider="bedrock")),
    (
        rf"/model/{_MODEL}/invoke-with-response-stream",
        Route(dialect="bedrock", provider="bedrock", streams=True),
    ),
)
_COMPILED = tuple((re.compile(rf"{pattern}/?\Z"), route) for pattern, route in _TABLE)
_LONGEST = 2048


def place_of(method: str, path: str) -> Place | None:
    """The route of a request; None when it calls no model."""
    if method != "POST" or len(path) > _LONGEST:
        return None
    for pattern, route in _COMPILED:
        found = pattern.search(path)
        if found is not None:
            named = found.groupdict().get("model")
            return Place(route=route, model=unquote(named) if named else None)
    return None
