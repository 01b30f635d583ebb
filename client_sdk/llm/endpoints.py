"""Where a provider is, how a caller shows who it is, and what its servers are particular about."""

import os
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One provider as an LLM client sees it.

    `api` is the shape of requests and `dialect` that of streams. `key_names` are variables of
    the environment that usually hold the key; `key_header` is where it goes, `{}` being the
    key. `prefills` says how an answer that was begun can be continued: `None` not at all, else
    the fields that mark the last message.
    """

    provider: str
    base_url: str | None = None
    api: str = "chat"
    dialect: str = "openai-chat"
    key_names: tuple[str, ...] = ()
    key_header: tuple[str, str] = ("authorization", "Bearer {}")
    headers: Mapping[str, str] = {}
    max_tokens: str = "max_tokens"
    usage_on_request: bool = True
    prefills: Mapping[str, bool] | None = None
    prefill_options: Mapping[str, bool] = {}


def _chat(provider: str, base_url: str | None, *key_names: str, **fields: object) -> Endpoint:
    return Endpoint(provider=provider, base_url=base_url, key_names=key_names, **fields)  # type: ignore[arg-type]  # fields of the table below


_ENDPOINTS = (
    _chat(
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        max_tokens="max_completion_tokens",
    ),
    _chat(
        "azure",
        None,
        "AZURE_OPENAI_API_KEY",
        key_header=("api-key", "{}"),
        max_tokens="max_completion_tokens",
    ),
    Endpoint(
        provider="anthropic",
        base_url="https://api.anthropic.com",
        api="anthropic",
        dialect="anthropic",
        key_names=("ANTHROPIC_API_KEY",),
        key_header=("x-api-key", "{}"),
        headers={"anthropic-version": "2023-06-01"},
        prefills={},
    ),
    Endpoint(
        provider="google",
        base_url="https://generativelanguage.googleapis.com",
        api="gemini",
        dialect="gemini",
        key_names=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        key_header=("x-goog-api-key", "{}"),
    ),
    _chat(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        dialect="mistral",
        usage_on_request=False,
        prefills={"prefix": True},
    ),
    _chat(
        "groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        max_tokens="max_completion_tokens",
        prefills={},
    ),
    _chat("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    _chat("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
    _chat("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    _chat("cohere", "https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "CO_API_KEY"),
    _chat("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    _chat("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    _chat("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", prefills={}),
    Endpoint(
        provider="ollama",
        base_url="http://127.0.0.1:11434",
        api="ollama",
        dialect="ollama",
        key_names=("OLLAMA_API_KEY",),
        prefills={},
    ),
    *(
        _chat(
            name,
            None,
            prefills={},
            prefill_options={"continue_final_message": True, "add_generation_prompt": False},
        )
        for name in ("vllm", "sglang")
    ),
    _chat("llamacpp", None, prefills={}),
    _chat("generic", None),
)

ENDPOINTS: dict[str, Endpoint] = {endpoint.provider: endpoint for endpoint in _ENDPOINTS}
"""Every provider that an LLM client can speak to, by name."""

APIS = ("chat", "responses")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One model at one endpoint, with all that is needed to ask it."""

    endpoint: Endpoint
    model: str
    base_url: str
    headers: Mapping[str, str]
    resource: str

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.endpoint.provider


def target(
    model: str,
    *,
    provider: str | None = None,
    base_url: str | None = None,
    api: str = "chat",
    api_key: str | None = None,
    resource: str | None = None,
    environment: Callable[[str], str | None] | None = None,
) -> Target:
    """The target that these words mean. Raises ValueError, and says what is allowed.

    Without *provider* it is the one that serves *base_url*, else the one that `provider/model`
    names, else the one whose models are named so.
    """
    if api not in APIS:
        raise ValueError(f"api={api!r}: allowed are {', '.join(APIS)}")
    name, model = _named(model, provider, base_url)
    endpoint = ENDPOINTS.get(name)
    if endpoint is None:
        raise ValueError(f"provider={name!r}: allowed are {', '.join(ENDPOINTS)}")
    if api == "responses":
        if endpoint.api != "chat":
            raise ValueError(f"api='responses': {name} has none")
        endpoint = msgspec.structs.replace(
            endpoint, api="responses", dialect="openai-responses", prefills=None
        )
    address = base_url or endpoint.base_url
    if address is None:
        raise ValueError(f"base_url: {name} is wherever you run it; say where")
    key = api_key or _key(endpoint, environment or _from_environment)
    headers = dict(endpoint.headers)
    if key:
        header, form = endpoint.key_header
        headers[header] = form.format(key)
    return Target(
        endpoint=endpoint,
        model=model,
        base_url=_versioned(address.rstrip("/"), endpoint.api),
        headers=headers,
        resource=resource or f"{name}/{model}",
    )


def provider_in(name: str) -> str | None:
    """The provider that `provider/model` names, None where the first word is none."""
    from limiter_wire.providers import known_provider  # noqa: PLC0415  # loaded by a client

    first, _, rest = name.partition("/")
    known = known_provider(first) if rest else None
    return known if known in ENDPOINTS else None


def _named(model: str, provider: str | None, base_url: str | None) -> tuple[str, str]:
    from limiter_wire.providers import by_host, detect, known_provider  # noqa: PLC0415  # as above

    if provider is not None:
        return known_provider(provider) or provider, model
    if base_url is not None:
        name = by_host(base_url)
        if name is None:
            found = detect(model=model)
            name = "openai" if found is not None and found.provider == "openai" else "generic"
        return name, model
    name = provider_in(model)
    if name is not None:
        return name, model.partition("/")[2]
    found = detect(model=model)
    return (found.provider if found is not None else "openai"), model


def _key(endpoint: Endpoint, environment: Callable[[str], str | None]) -> str | None:
    return next((key for name in endpoint.key_names if (key := environment(name))), None)


def _from_environment(name: str) -> str | None:
    # Where every client of a provider looks for its key.
    return os.environ.get(name)  # noqa: TID251  # a caller's key, not a setting of ours


def _versioned(address: str, api: str) -> str:
    """The base URL as the paths below expect it: OpenAI's has a version, the others' have none."""
    path = urlsplit(address).path
    if api in {"chat", "responses"}:
        return address if path else f"{address}/v1"
    return address.removesuffix("/v1").removesuffix("/v1beta")
