"""Figures in error messages: how large a prompt was, and which limit is spent by how much.

They are exact and free: a context window to remember, a count to correct estimates by, a
level to set a bucket to.
"""

from collections.abc import Mapping

from limiter_wire.limits import SpentLimit
from limiter_wire.providers.failures import ContextTokens
from limiter_wire.providers.rules import compiled

_N = r"(\d[\d,_]{0,14})"

# Each pattern with what its groups are. Figures first: a phrase alone needs more care.
_FIGURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        (
            rf"maximum context length is {_N} tokens.*?requested {_N} output tokens and your prompt"
            rf" contains (?:at least )?{_N} input tokens"
        ),
        ("context_limit", "max_tokens", "prompt_tokens"),
    ),
    (
        (
            rf"passed {_N} input tokens and requested {_N} output tokens.*?context length is only"
            rf" {_N} tokens"
        ),
        ("prompt_tokens", "max_tokens", "context_limit"),
    ),
    (
        (
            rf"maximum context length (?:is|of) {_N} tokens.*?"
            rf"(?:you requested|resulted in|requested about)\s+(?:about )?{_N} tokens"
        ),
        ("context_limit", "requested"),
    ),
    (
        rf"requested token count exceeds the model's maximum context length of {_N}",
        ("context_limit",),
    ),
    (rf"prompt is too long: {_N} tokens > {_N} maximum", ("prompt_tokens", "context_limit")),
    (
        rf"input length and `?max_tokens`? exceed context limit: {_N} \+ {_N} > {_N}",
        ("prompt_tokens", "max_tokens", "context_limit"),
    ),
    (
        rf"input token count \({_N}\) exceeds the maximum number of tokens allowed \({_N}\)",
        ("prompt_tokens", "context_limit"),
    ),
    (
        rf"maximum prompt length is {_N} but the request contains {_N}",
        ("context_limit", "prompt_tokens"),
    ),
    (
        rf"prompt contains {_N} tokens.*?too large for model with {_N} maximum context length",
        ("prompt_tokens", "context_limit"),
    ),
    (
        rf"request \({_N} tokens\) exceeds the available context size \({_N} tokens\)",
        ("prompt_tokens", "context_limit"),
    ),
    (
        rf"total number of tokens in the prompt cannot exceed {_N}\D{{1,20}}received {_N}",
        ("context_limit", "prompt_tokens"),
    ),
    (
        rf"max tokens must be less than or equal to {_N}.*?received {_N}",
        ("context_limit", "requested"),
    ),
    (rf"size limit exceeded by {_N} tokens", ("excess",)),
    (rf"current length is {_N} while limit is {_N}", ("prompt_tokens", "context_limit")),
    (
        rf"prompt token count of {_N} exceeds the limit of {_N}",
        ("prompt_tokens", "context_limit"),
    ),
    (
        rf"exceeded model token limit: {_N} \(requested: {_N}\)",
        ("context_limit", "requested"),
    ),
    (
        rf"input too long: {_N} input tokens, limit is {_N}",
        ("prompt_tokens", "context_limit"),
    ),
    (
        (
            rf"`inputs` tokens \+ `max_new_tokens` must be <= {_N}"
            rf"(?:.*?given: {_N} `inputs` tokens and {_N} `max_new_tokens`)?"
        ),
        ("context_limit", "prompt_tokens", "max_tokens"),
    ),
    (rf"maximum context length (?:is|of) {_N} tokens", ("context_limit",)),
)
_BREAKDOWN = (
    rf"\({_N} in (?:your prompt|the messages)[;,]? *(?:and )?{_N}[^)]{{0,40}}"
    r"(?:for|in) the completion"
)
# The completion alone is too large: the prompt may be as it is.
_OUTPUT_CAP = rf"max_tokens: {_N} > {_N},? which is the maximum allowed number of output tokens"

_PHRASES = (
    r"reduce the length of (?:the|your) (?:messages|input|prompt)"
    r"|exceeds? (?:the|this|its) (?:model's )?(?:maximum )?context (?:window|length|size|limit)"
    r"|input is too long for requested model"
    r"|input length exceeds the context length"
    r"|greater than the context length"
    r"|too many input tokens"
    r"|prompt is too long"
    r"|context[ _]length[ _]exceeded"
    r"|(?:maximum|max) context length"
)
# Long strings of other kinds, and rates, speak of tokens and of length too.
_SOMETHING_ELSE = (
    r"string_above_max_length|invalid 'user'|per[ -]?min|\bTPM\b|rate.?limit|throttl"
    r"|please wait|per day"
)


def context_tokens(message: str, fields: Mapping[str, object]) -> ContextTokens | None:
    """The figures of a message about a prompt that is too long; None when it is not that."""
    found: dict[str, int] = {}
    for pattern, names in _FIGURES:
        match = compiled(pattern).search(message)
        if match is not None:
            found = {n: _int(g) for n, g in zip(names, match.groups(), strict=True) if g}
            break
    split = compiled(_BREAKDOWN).search(message) if found else None
    if split is not None:
        found |= {"prompt_tokens": _int(split[1]), "max_tokens": _int(split[2])}
    for name, field in (("prompt_tokens", "n_prompt_tokens"), ("context_limit", "n_ctx")):
        value = fields.get(field)
        if isinstance(value, int) and value > 0:
            found.setdefault(name, value)
    return _sized(found) if found else None


def says_too_long(message: str) -> bool:
    """Whether *message* is about a prompt that does not fit, with figures or without."""
    if compiled(_OUTPUT_CAP).search(message) is not None:
        return False
    if any(compiled(pattern).search(message) for pattern, _ in _FIGURES):
        return True
    return (
        compiled(_PHRASES).search(message) is not None
        and compiled(_SOMETHING_ELSE).search(message) is None
    )


def output_cap(message: str) -> ContextTokens | None:
    """The figures of a message that the completion asked for is too large."""
    match = compiled(_OUTPUT_CAP).search(message)
    if match is None:
        return None
    asked, most = _int(match[1]), _int(match[2])
    return ContextTokens(max_tokens=most, requested=asked, excess=asked - most)


def _sized(found: dict[str, int]) -> ContextTokens:
    """Fill in what follows from the rest."""
    limit = found.get("context_limit")
    total = found.get("requested")
    if total is None and "prompt_tokens" in found:
        total = found["prompt_tokens"] + found.get("max_tokens", 0)
    if limit is not None and total is not None and total > limit:
        found.setdefault("excess", total - limit)
    return ContextTokens(**found)


_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_METERS = {
    "requests": "requests",
    "tokens": "tokens",
    "input tokens": "input_tokens",
    "output tokens": "output_tokens",
}
_SPENT = (
    r"(?:rate limit reached|request too large) for (?:model )?`?([\w./:@-]{1,100}?)`?"
    r"(?: \([^)]{0,100}\))?(?: in [^.]{0,200}?)?(?: service tier `?\w{1,40}`?)?"
    r" on ((?:input |output )?(?:tokens|requests)) per (sec|min|hour|day)\w{0,4}"
    rf" \(\w{{2,5}}\): limit:? {_N}(?:,? used:? {_N})?(?:,? requested:? {_N})?"
)


def spent_limit(message: str) -> SpentLimit | None:
    """The limit that a 429 of OpenAI or Groq names, with what is used and was asked for."""
    match = compiled(_SPENT).search(message)
    if match is None:
        return None
    model, meter, period, limit, used, requested = match.groups()
    return SpentLimit(
        meter=_METERS[meter.lower()],
        per=_PERIODS[period[0].lower()],
        limit=float(_int(limit)),
        used=float(_int(used)) if used else None,
        requested=float(_int(requested)) if requested else None,
        model=model,
    )


def _int(text: str) -> int:
    return int(text.replace(",", "").replace("_", ""))
