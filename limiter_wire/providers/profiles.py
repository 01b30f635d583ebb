"""What is known of each provider, as data: how it counts, what its headers mean, where it is.

Figures and rules are those of November 2026. `assumed` marks what no provider documents.
Ceilings by tier stand in `presets.py`, errors in `dialects/`.
"""

from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from limiter_wire.limits import Meter
from limiter_wire.providers.ratelimits import PLAIN, Convention

AS_OF = "2026-11-22"
"""When the facts of this package were last compared with their sources."""

Reserve = Literal[
    "tokens",
    "input",
    "sum(input, max_output)",
    "max(input, max_output)",
    "input + expected_output",
    "unweighted(input, max_output)",
    "expected_output",
]
Settle = Literal["actual", "none"]
Component = Literal["input", "cache_read", "cache_write", "output", "reasoning"]
Period = Literal["second", "minute", "hour", "day", "month"]
Window = Literal["bucket", "sliding", "calendar"]
Confidence = Literal["documented", "reported", "assumed"]

MINUTE: tuple[Period, ...] = ("second", "minute")


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider counts on one meter, and when.

    `weights` factor the components of usage; `weights_by_model` adds those of the first
    pattern that a model's name fits.
    """

    meter: Meter
    reserve: Reserve | None = None
    settle: Settle = "actual"
    weights: dict[Component, float] = {}
    weights_by_model: tuple[tuple[str, dict[Component, float]], ...] = ()
    confidence: Confidence = "documented"

    def weights_of(self, model: str) -> dict[Component, float]:
        """The factors for *model*."""
        for pattern, weights in self.weights_by_model:
            if fnmatchcase(model.lower(), pattern):
                return self.weights | weights
        return self.weights


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider's window on one meter behaves, for limits of these periods.

    `burst_seconds` is how much of the rate may come at once; None is a whole period.
    """

    meters: tuple[Meter, ...]
    periods: tuple[Period, ...]
    window: Window = "bucket"
    burst_seconds: float | None = None
    timezone: str = "UTC"
    confidence: Confidence = "documented"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One provider.

    `stream` is the dialect of its streams. `hosts` are patterns of whole host names.
    `hint_order` says whether a time in the body goes before one in a header. `headers` is a
    family's name in words; None when it sends none that tell a limit.
    """

    name: str
    title: str
    parent: str | None = None
    stream: str = "openai-chat"
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    header_marks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    charges: tuple[Charge, ...] = ()
    shapes: tuple[Shape, ...] = ()
    convention: Convention = PLAIN
    headers: str | None = None
    resets: str | None = None
    retry_after: bool = True
    body_first: bool = False
    failed_requests_count: bool = True
    cancel_stops_billing: bool = True
    limits_on: str = ""
    notes: str = ""

    def charge(self, meter: Meter) -> Charge | None:
        """What counts on *meter*; None where nothing special is known."""
        return next((charge for charge in self.charges if charge.meter is meter), None)

    def shape(self, meter: Meter, period: str | None) -> Shape | None:
        """The window of a limit on *meter* per *period*."""
        for shape in self.shapes:
            if meter in shape.meters and period in shape.periods:
                return shape
        return None


_R, _T = Meter.REQUESTS, Meter.TOKENS
_IN, _OUT = Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS
_ALL_TOKENS = (_T, _IN, _OUT)
# Calls do not arrive as they were let go: one is overtaken, another took longer. So a bucket
# holds less than the provider's, and what is missing costs no rate: half of a second where a
# second is enforced, two seconds of a minute of tokens.
_SECOND_OF_REQUESTS = Shape(meters=(_R,), periods=MINUTE, burst_seconds=0.5)
# Where a window is not known, single seconds are the strictest that anybody enforces.
_ASSUMED_SECOND = Shape(meters=(_R,), periods=MINUTE, burst_seconds=0.5, confidence="assumed")
_REPORTED_SECOND = Shape(meters=(_R,), periods=MINUTE, burst_seconds=0.5, confidence="reported")
# Of fixed seconds nobody outside sees the edge, and any burst could meet twice its size there.
_ONE_BY_ONE = Shape(meters=(_R,), periods=MINUTE, burst_seconds=0)
_MINUTE_OF_TOKENS = Shape(meters=_ALL_TOKENS, periods=("minute",), burst_seconds=58)
# Output that is charged as it comes: a bucket that is full earns nothing, but one that holds
# something for calls under way does, while they run. Six seconds of theirs are left out.
_OUTPUT_AS_IT_COMES = Shape(meters=(_OUT,), periods=("minute",), burst_seconds=54)
# Likewise of fixed minutes: the limit holds in every minute, wherever it begins.
_ANY_MINUTE_OF_TOKENS = Shape(meters=_ALL_TOKENS, periods=("minute",), window="sliding")
_ASSUMED_ANY_MINUTE = Shape(
    meters=_ALL_TOKENS, periods=("minute",), window="sliding", confidence="assumed"
)
_UP_FRONT = Charge(meter=_T, reserve="sum(input, max_output)", settle="none", confidence="assumed")
_CACHED_FREE: dict[Component, float] = {"cache_read": 0.0}
_X_RATELIMIT = "x-ratelimit-{limit,remaining,reset}-{requests,tokens}"

# Bedrock weighs output once it is known; the reservation is plain.
_BURNDOWN: tuple[tuple[str, dict[Component, float]], ...] = (
    ("*claude*4-8*", {"output": 15.0, "reasoning": 15.0}),
    ("*claude*4.8*", {"output": 15.0, "reasoning": 15.0}),
    ("*claude-3-7*", {"output": 5.0, "reasoning": 5.0}),
    ("*claude-[a-z]*-4*", {"output": 5.0, "reasoning": 5.0}),
    ("*claude-[a-z]*-5*", {"output": 10.0, "reasoning": 10.0}),
    ("*claude-5*", {"output": 10.0, "reasoning": 10.0}),
    ("*gpt-5.6*", {"output": 10.0, "reasoning": 10.0}),
)

_PROFILES = (
    Profile(
        name="openai",
        title="OpenAI",
        hosts=("api.openai.com", "*.api.openai.com"),
        header_marks=("openai-organization", "openai-processing-ms", "openai-version"),
        models=("gpt-*", "chatgpt-*", "o[1-9]*", "text-embedding-*", "codex-*"),
        charges=(
            Charge(meter=_T, reserve="max(input, max_output)", settle="none", confidence="assumed"),
        ),
        shapes=(_REPORTED_SECOND, _MINUTE_OF_TOKENS),
        headers=_X_RATELIMIT,
        resets="Go durations (6m0s)",
        limits_on="organization and project, per family of models",
        notes="whether unused max_tokens come back is not documented: treated as spent",
    ),
    Profile(
        name="azure",
        title="Azure OpenAI",
        parent="openai",
        hosts=(
            "*.openai.azure.com",
            "*.services.ai.azure.com",
            "*.cognitiveservices.azure.com",
            "*.openai.azure.us",
        ),
        header_marks=("apim-request-id", "x-ms-region", "x-ms-deployment-name"),
        charges=(
            Charge(meter=_T, reserve="sum(input, max_output)", settle="none"),
            # Claude in Foundry: uncached input, and output as it is generated.
            Charge(meter=_IN, reserve="input", weights=_CACHED_FREE),
            Charge(meter=_OUT, reserve="expected_output"),
        ),
        shapes=(_ONE_BY_ONE, _ANY_MINUTE_OF_TOKENS),
        headers=_X_RATELIMIT,
        resets="whole seconds; -1 is unknown",
        limits_on="deployment, from a quota per subscription, region and model",
        notes="tokens are counted once, on arrival, in fixed minutes; nothing comes back",
    ),
    Profile(
        name="anthropic",
        title="Anthropic",
        stream="anthropic",
        hosts=("api.anthropic.com",),
        header_marks=("anthropic-ratelimit-*", "anthropic-organization-id"),
        models=("claude-*",),
        charges=(
            Charge(
                meter=_IN,
                reserve="input",
                weights=_CACHED_FREE,
                weights_by_model=(("claude-3-5-haiku*", {"cache_read": 1.0}),),
            ),
            Charge(meter=_OUT, reserve="expected_output"),
        ),
        shapes=(_SECOND_OF_REQUESTS, _OUTPUT_AS_IT_COMES, _MINUTE_OF_TOKENS),
        convention=Convention(
            rounded={
                "tokens": 1000,
                "input-tokens": 1000,
                "output-tokens": 1000,
            }
        ),
        headers="anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-*",
        resets="RFC 3339, when the limit is full again",
        limits_on="organization and workspace, per class of models",
        notes="output counts as it is generated; max_tokens does not matter",
    ),
    Profile(
        name="google",
        title="Gemini API",
        stream="gemini",
        hosts=("generativelanguage.googleapis.com",),
        models=("gemini-*", "models/gemini-*"),
        charges=(
            Charge(meter=_T, reserve="input", weights={"output": 0.0, "reasoning": 0.0}),
            Charge(meter=_IN, reserve="input"),
        ),
        shapes=(
            Shape(
                meters=(_R, _T, _IN), periods=("minute",), window="sliding", confidence="assumed"
            ),
            Shape(
                meters=(_R, _T, _IN),
                periods=("day",),
                window="calendar",
                timezone="America/Los_Angeles",
            ),
        ),
        body_first=True,
        cancel_stops_billing=False,
        limits_on="project, per model",
        notes="TPM counts input only; the delay of RetryInfo in the body is the time to trust",
    ),
    Profile(
        name="vertex",
        title="Vertex AI",
        parent="google",
        stream="gemini",
        hosts=("aiplatform.googleapis.com", "*-aiplatform.googleapis.com"),
        charges=(
            Charge(meter=_T, reserve="input + expected_output"),
            # Claude on Vertex has both.
            Charge(meter=_IN, reserve="input", confidence="assumed"),
            Charge(meter=_OUT, reserve="expected_output", confidence="assumed"),
        ),
        shapes=(Shape(meters=(_R,), periods=("minute",), burst_seconds=10),),
        body_first=True,
        cancel_stops_billing=False,
        limits_on="project, a baseline by spend in a shared pool",
        notes="above the baseline as capacity allows; smooth traffic within the minute",
    ),
    Profile(
        name="bedrock",
        title="AWS Bedrock",
        stream="bedrock",
        hosts=(
            "bedrock-runtime.*.amazonaws.com",
            "bedrock-runtime-fips.*.amazonaws.com",
            "bedrock-runtime.*.amazonaws.com.cn",
            "bedrock-mantle.*.api.aws",
        ),
        header_marks=("x-amzn-requestid", "x-amzn-errortype", "x-amzn-bedrock-*"),
        models=(
            "anthropic.*",
            "amazon.*",
            "meta.*",
            "us.anthropic.*",
            "eu.anthropic.*",
            "global.anthropic.*",
        ),
        charges=(
            Charge(
                meter=_T,
                reserve="unweighted(input, max_output)",
                weights=_CACHED_FREE,
                weights_by_model=_BURNDOWN,
            ),
            # The endpoint that counts input and output apart: admission looks at both.
            Charge(meter=_IN, reserve="sum(input, max_output)", weights=_CACHED_FREE),
            Charge(meter=_OUT, reserve="expected_output"),
        ),
        shapes=(_ASSUMED_SECOND, _MINUTE_OF_TOKENS),
        retry_after=False,
        cancel_stops_billing=False,
        limits_on="account and region, per model",
        notes="max_tokens is held at the start; output then weighs 5 to 15 times (15 and 10 are "
        "second-hand)",
    ),
    Profile(
        name="mistral",
        title="Mistral",
        stream="mistral",
        hosts=("api.mistral.ai", "codestral.mistral.ai"),
        header_marks=("x-ratelimitbysize-*", "ratelimitbysize-*"),
        models=(
            "mistral-*",
            "ministral-*",
            "magistral-*",
            "codestral-*",
            "devstral-*",
            "pixtral-*",
            "open-mi?tral-*",
        ),
        charges=(_UP_FRONT,),
        shapes=(_ONE_BY_ONE, _ASSUMED_ANY_MINUTE),
        headers="x-ratelimitbysize-*, ratelimitbysize-*",
        resets="whole seconds",
        cancel_stops_billing=False,
        limits_on="organization (or workspace: its documentation disagrees)",
        notes="requests per second; a request costs its input and max_tokens",
    ),
    Profile(
        name="groq",
        title="Groq",
        hosts=("api.groq.com",),
        header_marks=("x-groq-*",),
        models=("groq/*",),
        charges=(
            Charge(meter=_T, reserve="sum(input, max_output)", weights=_CACHED_FREE),
            Charge(meter=_IN, reserve="input", weights=_CACHED_FREE),
        ),
        shapes=(_ASSUMED_SECOND, _MINUTE_OF_TOKENS),
        convention=Convention(periods={"requests": "day"}),
        headers=f"{_X_RATELIMIT}; requests are those of a day",
        resets="Go durations (2m59.56s)",
        cancel_stops_billing=False,
        limits_on="organization, per model",
        notes="cached input is free",
    ),
    Profile(
        name="cerebras",
        title="Cerebras",
        hosts=("api.cerebras.ai",),
        header_marks=("x-ratelimit-*-requests-day", "x-ratelimit-*-tokens-minute"),
        charges=(_UP_FRONT,),
        shapes=(_SECOND_OF_REQUESTS, _MINUTE_OF_TOKENS),
        headers="x-ratelimit-{limit,remaining,reset}-{requests-day,tokens-minute}",
        resets="seconds with a fraction (33011.38)",
        limits_on="organization, per model",
        notes="its code request_quota_exceeded is a rate, not a quota",
    ),
    Profile(
        name="xai",
        title="xAI",
        hosts=("api.x.ai", "*.api.x.ai"),
        models=("grok-*",),
        charges=(Charge(meter=_T, reserve="sum(input, max_output)", confidence="assumed"),),
        shapes=(_ONE_BY_ONE, _ASSUMED_ANY_MINUTE),
        limits_on="team, per model",
        notes="requests count by the second, without bursts; cached and reasoning tokens count",
    ),
    Profile(
        name="deepseek",
        title="DeepSeek",
        hosts=("api.deepseek.com",),
        header_marks=("x-ds-trace-id",),
        models=("deepseek-*",),
        cancel_stops_billing=False,
        limits_on="account, per model",
        notes="counts calls at once, until each is complete; sends no headers",
    ),
    Profile(
        name="cohere",
        title="Cohere",
        stream="cohere",
        hosts=("api.cohere.com", "api.cohere.ai"),
        header_marks=("x-endpoint-monthly-call-limit", "x-trial-endpoint-call-limit"),
        models=("command-*", "embed-*", "rerank-*"),
        shapes=(_ASSUMED_SECOND,),
        headers="x-ratelimit-reset",
        resets="Unix seconds",
        limits_on="account, per endpoint",
        notes="count usage.tokens, not billed_units",
    ),
    Profile(
        name="together",
        title="Together AI",
        hosts=("api.together.ai", "api.together.xyz"),
        shapes=(_ASSUMED_SECOND,),
        headers="x-ratelimit-reset",
        resets="seconds",
        limits_on="organization, per model",
        notes="a dynamic limit of about twice the successful rate of the past hour",
    ),
    Profile(
        name="fireworks",
        title="Fireworks AI",
        hosts=("api.fireworks.ai",),
        header_marks=("x-ratelimit-limit-tokens-prompt", "x-ratelimit-over-limit"),
        models=("accounts/fireworks/*",),
        charges=(
            Charge(meter=_IN, reserve="input"),
            Charge(meter=_OUT, reserve="expected_output"),
        ),
        shapes=(_ASSUMED_SECOND,),
        convention=Convention(periods={"tokens-prompt": "second", "tokens-generated": "second"}),
        headers="x-ratelimit-limit-tokens-{prompt,generated}, x-ratelimit-over-limit",
        resets="seconds; limits are tokens per second",
        limits_on="account",
        notes="adaptive limits on prompt, uncached prompt and generated tokens",
    ),
    Profile(
        name="openrouter",
        title="OpenRouter",
        hosts=("openrouter.ai", "*.openrouter.ai"),
        header_marks=("x-generation-id",),
        shapes=(
            _ASSUMED_SECOND,
            Shape(meters=(_R,), periods=("day",), window="calendar"),
        ),
        headers="x-ratelimit-{limit,remaining,reset}, only on its own 429",
        resets="Unix milliseconds",
        cancel_stops_billing=False,
        limits_on="account",
        notes="a 429 may be the upstream provider's; cancelling stops the bill at some of them",
    ),
    Profile(
        name="ollama",
        title="Ollama",
        stream="ollama",
        hosts=("ollama.com",),
        ports=(11434,),
        retry_after=False,
        failed_requests_count=False,
        limits_on="server, per model",
        notes="OLLAMA_NUM_PARALLEL calls at once, OLLAMA_MAX_QUEUE waiting; long prompts are "
        "cut silently",
    ),
    Profile(
        name="vllm",
        title="vLLM",
        retry_after=False,
        failed_requests_count=False,
        limits_on="server",
        notes="a queue without limits; an error in a stream is followed by [DONE]",
    ),
    Profile(
        name="sglang",
        title="SGLang",
        parent="vllm",
        retry_after=False,
        failed_requests_count=False,
        limits_on="server",
        notes="as vLLM; an abort chunk ends an interrupted stream",
    ),
    Profile(
        name="llamacpp",
        title="llama.cpp",
        header_marks=("x-llama-*",),
        retry_after=False,
        failed_requests_count=False,
        limits_on="server",
        notes="slots; a body with n_prompt_tokens and n_ctx when the prompt is too long",
    ),
    Profile(
        name="generic",
        title="Any other",
        stream="unknown",
        headers="whatever of the above is recognized",
        resets="every syntax above",
        notes="limits behave as the file says",
    ),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _PROFILES}
"""Every provider that is known, by name."""

GENERIC = PROFILES["generic"]


ALIASES = {
    "azure-openai": "azure",
    "azure_openai": "azure",
    "claude": "anthropic",
    "gemini": "google",
    "vertex-ai": "vertex",
    "vertex_ai": "vertex",
    "aws": "bedrock",
    "x-ai": "xai",
    "together-ai": "together",
    "fireworks-ai": "fireworks",
    "llama.cpp": "llamacpp",
}
"""Other names by which people call them."""


def known_provider(name: str) -> str | None:
    """The name of a profile, from it or from another name; None when nobody knows it."""
    name = ALIASES.get(name.lower(), name.lower())
    return name if name in PROFILES else None


def profile(name: str) -> Profile:
    """The profile of *name*; what nobody knows is `generic`."""
    return PROFILES[known_provider(name) or "generic"]


def lineage(name: str) -> tuple[Profile, ...]:
    """The profile of *name* and those that it descends from."""
    own = profile(name)
    return (own,) if own.parent is None else (own, *lineage(own.parent))
