"""Token counts without a tokenizer: an estimate by script, and a ratio learned from reality.

    estimator = Estimator()
    guess = estimator.request(messages, model="gpt-4o", tools=tools)
    async with limiter.acquire("openai/gpt-4o", input_tokens=guess.tokens, ...) as lease:
        ...
    estimator.learn(guess, actual=usage.input_tokens)

Nothing is loaded or fetched. Counts that are exact need a vocabulary: `exact.py`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from re import Pattern
from typing import Any

from client_sdk.calibration import DEFAULT, Estimate, Ratio
from client_sdk.pictures import picture_tokens, size_of
from client_sdk.token_weights import FAMILIES, WEIGHTS
from limiter_wire import Calibration

__all__ = [
    "Counter",
    "Estimate",
    "Estimator",
    "Ratio",
    "estimate_text",
    "family_of",
]

Counter = Callable[[str], int]
"""Counts the tokens of a text exactly."""

_CLASSES = {
    "latin": "A-Za-z",
    "digit": "0-9",
    "space": " \t",
    "newline": "\n\r",
    "sign": r"!-/:-@\[-`{-~",
    "accented": "\u00c0-\u024f\u1e00-\u1eff",
    "cyrillic": "\u0400-\u052f",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "hebrew": "\u0590-\u05ff\ufb1d-\ufb4f",
    "arabic": "\u0600-\u07ff\ufb50-\ufdff\ufe70-\ufefe",
    "indic": "\u0900-\u0eff",
    "hangul": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "kana": "\u3040-\u30ff\u31f0-\u31ff",
    "han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
}
# Keys, digests and encoded bytes: letters and digits in one run, which no vocabulary knows
# words in. Their ends are not looked at twice, so hostile text costs no more than other.
_CODES = {
    "hex": r"(?=[0-9]{0,40}[A-Fa-f])(?=[A-Fa-f]{0,40}[0-9])[0-9A-Fa-f]{8,}+(?![A-Za-z])",
    "code": (
        r"(?=[A-Za-z+]{0,40}[0-9])(?=[a-z0-9+]{0,40}[A-Z])(?=[A-Z0-9+]{0,40}[a-z])"
        r"[A-Za-z0-9+]{16,}+"
    ),
}
_SAMPLES, _SAMPLE = 16, 512
_SAMPLED_FROM = 4 * _SAMPLES * _SAMPLE

# What wraps each message and the answer's beginning, and what announces tools.
_PER_MESSAGE, _PER_REQUEST, _PER_TOOL = 4, 3, 8
_CLAUDE_TOOLS = 346


def family_of(model: str) -> str:
    """The vocabulary whose weights suit *model*; `o200k` where nothing is known."""
    name = model.lower()
    return next((family for pattern, family in FAMILIES if fnmatchcase(name, pattern)), "o200k")


def estimate_text(text: str, family: str = "o200k") -> float:
    """About how many tokens *text* has; long texts are judged by samples of them."""
    if len(text) <= _SAMPLED_FROM:
        return _weigh(text, family)
    step = (len(text) - _SAMPLE) / (_SAMPLES - 1)
    starts = [int(i * step) for i in range(_SAMPLES)]
    seen = sum(_weigh(text[start : start + _SAMPLE], family) for start in starts)
    return seen * len(text) / (_SAMPLES * _SAMPLE)


def _weigh(text: str, family: str) -> float:
    weights = WEIGHTS[family]
    total = 0.0
    for run in _runs().finditer(text):
        per_run, per_character = weights[run.lastgroup or "other"]
        total += per_run + per_character * (run.end() - run.start())
    return total


@cache
def _runs() -> Pattern[str]:
    import re  # noqa: PLC0415  # compiled when first needed

    codes = "|".join(f"(?P<{name}>{pattern})" for name, pattern in _CODES.items())
    known = "|".join(f"(?P<{name}>[{letters}]+)" for name, letters in _CLASSES.items())
    return re.compile(f"{codes}|{known}|(?P<other>[^{''.join(_CLASSES.values())}]+)")


class Estimator:
    """Estimates requests, and learns from what they really had, by model and route.

    A route is a kind of request (prompts of one program resemble each other); mixing routes
    spoils the ratio. The state is `ratios`, at most *most* of them, oldest out first.
    """

    def __init__(self, counters: Mapping[str, Counter] | None = None, most: int = 10_000) -> None:
        """*counters* count exactly, by family (`exact.counters` finds those at hand)."""
        self._counters, self._most = dict(counters or {}), most
        self.ratios: dict[tuple[str, str], Ratio] = {}

    def text(self, text: str, model: str, route: str = DEFAULT) -> Estimate:
        """An estimate for a bare text."""
        family = family_of(model)
        counter = self._counters.get(family)
        if counter is not None:
            return _exactly(counter(text), model, route)
        return self._corrected(estimate_text(text, family), model, route)

    def request(
        self,
        messages: Iterable[Mapping[str, Any]],
        model: str,
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        system: Any = None,  # text or blocks, as the provider takes it
        route: str = DEFAULT,
    ) -> Estimate:
        """An estimate for a chat request: messages, system prompt, tools and pictures.

        Messages are those of OpenAI, Anthropic or Gemini. Documents, audio and video are not
        counted.
        """
        family = family_of(model)
        exact = self._counters.get(family)

        def count(text: str) -> float:
            return estimate_text(text, family) if exact is None else exact(text)

        looks = "gemini" if "gemini" in model.lower() else family
        raw = _request_tokens(messages, tools, system, count, looks)
        return self._corrected(raw, model, route)

    def learn(self, estimate: Estimate, actual: int) -> None:
        """Take in how many tokens the provider counted for what *estimate* was made for.

        *actual* is the whole input, cached parts included.
        """
        key = (estimate.model, estimate.route)
        before = self.ratios.pop(key, Ratio())
        self._keep(key, before.learned(estimate.raw, actual))

    def adopt(self, model: str, route: str, shared: Calibration) -> None:
        """Begin with what others have learned, unless more was learned here.

        The ratio of a whole model is a rough guess: one's own samples soon outweigh it.
        """
        before = self.ratios.pop((model, route), Ratio())
        samples = shared.samples if shared.of_route else min(shared.samples, _ROUGH)
        if samples > before.samples:
            before = Ratio(samples=samples, ratio=shared.ratio, spread=shared.spread)
        self._keep((model, route), before)

    def _keep(self, key: tuple[str, str], ratio: Ratio) -> None:
        if len(self.ratios) >= self._most:
            del self.ratios[next(iter(self.ratios))]
        self.ratios[key] = ratio

    def _corrected(self, raw: float, model: str, route: str) -> Estimate:
        ratio = self.ratios.get((model, route), Ratio())
        tokens = raw * ratio.ratio
        trusted = ratio.samples >= _TRUSTED
        margin = _HIGH * ratio.spread if trusted else max(_UNLEARNED, _HIGH * ratio.spread)
        return Estimate(
            model=model,
            route=route,
            raw=raw,
            tokens=math.ceil(tokens),
            high=math.ceil(tokens * (1 + margin)),
        )


_HIGH = 2.5  # mean errors above the mean: nineteen of twenty requests need less
_UNLEARNED = 0.35  # how far off an uncorrected estimate may be
_TRUSTED = 10
_ROUGH = 2


def _exactly(count: int, model: str, route: str) -> Estimate:
    return Estimate(
        model=model, route=route, raw=float(count), tokens=count, high=count, exact=True
    )


def _request_tokens(
    messages: Iterable[Mapping[str, Any]],
    tools: Iterable[Mapping[str, Any]] | None,
    system: Any,
    count: Callable[[str], float],
    family: str,
) -> float:
    total = float(_PER_REQUEST)
    if system:
        total += _PER_MESSAGE + _content_tokens(system, count, family)
    for message in messages:
        total += _PER_MESSAGE + _content_tokens(message, count, family)
    schemas = list(tools or ())
    if schemas and family.startswith("claude"):
        total += _CLAUDE_TOOLS
    return total + sum(_PER_TOOL + count(_json(schema)) for schema in schemas)


# What a message says, and what only arranges it.
_SPOKEN = {
    "text",
    "content",
    "name",
    "thinking",
    "reasoning",
    "reasoning_content",
    "refusal",
    "output",
    "parts",
    "tool_calls",
    "function",
    "functionCall",
    "function_call",
    "functionResponse",
    "function_response",
}
_SPOKEN_AS_JSON = {"input", "arguments", "args", "response"}
_PICTURES = {"image", "image_url", "input_image"}


def _content_tokens(content: Any, count: Callable[[str], float], family: str) -> float:
    """Tokens of a message, a part, or a list of these."""
    if isinstance(content, str):
        return count(content)
    if isinstance(content, Mapping):
        if _is_picture(content):
            detail = content.get("image_url")
            wish = detail.get("detail") if isinstance(detail, Mapping) else content.get("detail")
            return picture_tokens(size_of(content), family, str(wish or "auto"))
        total = 0.0
        for key, value in content.items():
            if key in _SPOKEN:
                total += _content_tokens(value, count, family)
            elif key in _SPOKEN_AS_JSON:
                total += count(value if isinstance(value, str) else _json(value))
        return total
    if isinstance(content, list | tuple):
        return sum(_content_tokens(part, count, family) for part in content)
    return 0.0


def _is_picture(part: Mapping[str, Any]) -> bool:
    data = part.get("inline_data") or part.get("inlineData")
    kind = data.get("mime_type") or data.get("mimeType") if isinstance(data, Mapping) else ""
    return part.get("type") in _PICTURES or str(kind).startswith("image/")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
