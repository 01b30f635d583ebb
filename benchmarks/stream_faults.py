"""Faults of streams, and how a client has to end that meets them: for the stream benchmarks."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from client_sdk import Outcome, StreamOutcome, StreamTimeouts
from limiter_service.provider_sim.content import Words, compose

CHAT, RESPONSES, ANTHROPIC = "openai", "responses", "anthropic"
GEMINI, OLLAMA, MISTRAL = "gemini", "ollama", "mistral"
SHAPES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "gpt-4o", "provider": "openai", "path": "/v1"},
    RESPONSES: {"model": "gpt-4o", "provider": "openai", "path": "/v1", "api": "responses"},
    ANTHROPIC: {"model": "claude-x", "provider": "anthropic", "path": ""},
    GEMINI: {"model": "gemini-x", "provider": "gemini", "path": "/gemini"},
    OLLAMA: {"model": "llama", "provider": "ollama", "path": "/ollama"},
    MISTRAL: {"model": "mistral-x", "provider": "mistral", "path": "/mistral/v1"},
}
ASKED = [{"role": "user", "content": "How high is the water?"}]
PATIENT = StreamTimeouts(
    connect=60.0, first_byte=60.0, first_token=60.0, idle_bytes=60.0, idle_content=60.0
)
"""Limits for streams that go on, however busy the machine is."""

STUCK_FIRST = msgspec.structs.replace(PATIENT, first_byte=2.0, first_token=2.0)
STUCK_LATER = msgspec.structs.replace(PATIENT, idle_bytes=2.0, idle_content=2.0)
"""Limits for streams that are stuck before their first token, or behind it."""

S = StreamOutcome
Ends = dict[StreamOutcome, Outcome | None]
"""The outcomes that are right, each with the category that has to come with it, None for any."""


class Case(NamedTuple):
    """One stream: what is asked, what goes wrong, how it has to end."""

    shape: str
    tokens: int
    words: str
    fault: str
    ends: Ends

    @property
    def patience(self) -> StreamTimeouts:
        """The limits that suit it."""
        held = self.fault == "hold-open" and self.shape == GEMINI  # whose streams have no last word
        if held or self.fault.startswith("stall-after-chunks"):
            return STUCK_LATER
        return STUCK_FIRST if self.fault.startswith(("stall-", "ping-only")) else PATIENT

    @property
    def text(self) -> str:
        """The text of the whole answer."""
        return compose(text=self.tokens, words=Words(self.words)).text

    @property
    def headers(self) -> dict[str, str]:
        """What the simulator is told."""
        told = {"x-sim-output-tokens": str(self.tokens), "x-sim-words": self.words}
        return {**told, "x-sim-fault": self.fault} if self.fault else told


_WHOLE: Ends = {S.COMPLETED: Outcome.SUCCESS}
_CUT: Ends = {S.INTERRUPTED: Outcome.STREAM_INTERRUPTED}
_NOTHING: Ends = {S.TRUNCATED: None, S.EMPTY: None}
_LATE: Ends = {S.STALLED_FIRST_TOKEN: Outcome.TIMEOUT}

HARMLESS = ("", "no-terminator", "hold-open", "duplicate-start", "gzip", "pings=2")
_DISGUISED = ("trickle=7; every=0", "content-type=text/plain", "slow-first-token=0.05")

_ERRORS: dict[str, Outcome] = {
    "rate-limit": Outcome.RATE_LIMITED,
    "insufficient-quota": Outcome.QUOTA_EXHAUSTED,
    "overloaded": Outcome.OVERLOADED,
    "server-error": Outcome.SERVER_ERROR,
    "timeout": Outcome.TIMEOUT,
    "bad-key": Outcome.AUTH,
    "permission": Outcome.PERMISSION,
    "model-not-found": Outcome.NOT_FOUND,
    "context-length": Outcome.CONTEXT_LENGTH_EXCEEDED,
}
_OWN_WORDS: dict[tuple[str, str], Outcome] = {
    (MISTRAL, "model-not-found"): Outcome.INVALID_REQUEST,
    (OLLAMA, "overloaded"): Outcome.RATE_LIMITED,  # its queue is full: the caller's to wait
}
# What says that the answer is over stands in the last frame of these.
_REASON_LAST = {RESPONSES, OLLAMA}
_IN_STREAM = ("overloaded", "server-error", "rate-limit")


def _error(shape: str, kind: str) -> Ends:
    return {S.PROVIDER_ERROR: _OWN_WORDS.get((shape, kind), _ERRORS[kind])}


def _before(shape: str, chance: random.Random) -> tuple[str, Ends]:
    """A fault before the first content, one of those that may be tried again."""
    kind = chance.choice(("overloaded", "server-error", "rate-limit; retry-after=0"))
    bare = kind.partition(";")[0]
    return chance.choice(
        (
            ("drop-before-headers", {S.INTERRUPTED: None}),
            ("drop-before-headers; reset", {S.INTERRUPTED: None}),
            ("drop-after-chunks=0", {S.INTERRUPTED: None}),
            ("truncate-after-chunks=0", _NOTHING),
            ("status=502", {S.PROVIDER_ERROR: Outcome.SERVER_ERROR}),
            (kind, _error(shape, bare)),
            (f"error-after-chunks=0; kind={bare}", {S.PROVIDER_ERROR: None}),
        )
    )


def _behind(tokens: int, chance: random.Random) -> tuple[str, Ends]:
    """A fault behind the first content."""
    at = chance.randint(1, tokens - 2)
    kind = chance.choice(_IN_STREAM)
    return chance.choice(
        (
            (f"drop-after-chunks={at}", _CUT),
            (f"drop-after-chunks={at}; reset", _CUT),
            (f"truncate-after-chunks={at}", {S.TRUNCATED: Outcome.STREAM_INTERRUPTED}),
            (f"error-after-chunks={at}; kind={kind}", {S.PROVIDER_ERROR: None}),
            (f"garbage-after-chunks={at}", {S.PROTOCOL_ERROR: Outcome.MALFORMED_STREAM}),
        )
    )


def _any(shape: str, tokens: int, chance: random.Random) -> tuple[str, Ends]:
    """Any fault at all."""
    at = chance.randint(1, tokens - 2)
    kind = chance.choice(list(_ERRORS))
    page: Ends = {S.NOT_AN_EVENT_STREAM: Outcome.MALFORMED_STREAM}
    # A body that is JSON is a line of Ollama's stream, and an error all the same.
    choice = chance.random()
    if choice < 0.3:
        fault = chance.choice([*HARMLESS, *_DISGUISED])
        cut = fault == "no-terminator" and shape in _REASON_LAST
        return fault, ({S.TRUNCATED: Outcome.STREAM_INTERRUPTED} if cut else _WHOLE)
    if choice < 0.5:
        return _before(shape, chance)
    if choice < 0.7:
        return _behind(tokens, chance)
    if choice < 0.95:
        return chance.choice(
            (
                ("html", page),
                (kind, _error(shape, kind)),
                (f"error-body={kind}", {S.PROVIDER_ERROR: None}),
                (f"drop-after-bytes={chance.randint(1, 900)}", {**_CUT, **_WHOLE, S.EMPTY: None}),
                (f"gzip, drop-after-chunks={at}", {**_CUT, S.TRUNCATED: None}),
            )
        )
    return chance.choice(
        (
            ("stall-before-headers", _LATE),
            ("stall-before-token", _LATE),
            ("ping-only; every=0.2", _LATE),
            (f"stall-after-chunks={at}", {S.STALLED_BYTES: None, S.STALLED_CONTENT: None}),
        )
    )


Draw = Callable[[str, int, random.Random], tuple[str, Ends]]


def cases(count: int, seed: int, draw: Draw = _any) -> list[Case]:
    """So many cases; the same seed draws the same ones."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        shape = chance.choice(list(SHAPES))
        tokens, words = chance.randint(5, 40), chance.choice(("plain", "plain", "hard"))
        fault, ends = draw(shape, tokens, chance)
        found.append(Case(shape, tokens, words, fault, ends))
    return found


BEFORE = (
    "drop-before-headers",
    "drop-before-headers; reset",
    "drop-after-chunks=0",
    "truncate-after-chunks=0",
    "status=502",
    "overloaded",
    "server-error",
    "error-after-chunks=0; kind=overloaded",
    "rate-limit; retry-after=0",
)
BEHIND = (
    "drop-after-chunks=1..30",
    "drop-after-chunks=1..30; reset",
    "truncate-after-chunks=1..30",
    "error-after-chunks=1..30; kind=overloaded",
    "garbage-after-chunks=1..30",
)
MIXES: dict[str, list[tuple[str, float]]] = {
    "before content, 1 in 5": [(fault, 0.2 / len(BEFORE)) for fault in BEFORE],
    "behind content, 1 in 10": [(fault, 0.1 / len(BEHIND)) for fault in BEHIND],
    "both, 1 in 4": [(fault, 0.25 / 14) for fault in (*BEFORE, *BEHIND)],
}
"""Faults that hit a share of all requests, those of retries as well."""
