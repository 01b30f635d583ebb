"""How a simulated provider behaves."""

import math
from enum import StrEnum

import msgspec

from limiter_service.provider_sim.faults.notation import FaultError, parse_rule


class InvalidOptionError(ValueError):
    """An option has a value that no provider could have; says which, and what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(f"{field} is {value!r}, but must be {allowed}")


class Window(StrEnum):
    """How a provider enforces a limit per minute.

    `bucket` refills continuously and holds a minute's worth. `minute` counts in fixed
    minutes from the provider's start. `second` counts tokens in fixed minutes as well, but
    requests in windows of one second, a sixtieth of the limit each: that is what callers
    of Azure meet, who are refused while the headers still promise requests.
    """

    BUCKET = "bucket"
    MINUTE = "minute"
    SECOND = "second"


class Charge(StrEnum):
    """What one request counts against the tokens per minute, decided at admission.

    `max` is max(input, max_tokens), as at OpenAI; `sum` is input + max_tokens, as at
    Azure; `actual` is input + the output that the answer will really have.
    """

    MAX = "max"
    SUM = "sum"
    ACTUAL = "actual"


class Rules(StrEnum):
    """Whose accounting applies.

    `auto` follows the route of a request; `plain` is what `window` and `charge` say, which
    is OpenAI's by default, and what `auto` takes for OpenAI's own routes.
    """

    AUTO = "auto"
    PLAIN = "plain"
    OPENAI = "openai"
    AZURE = "azure"
    ANTHROPIC = "anthropic"
    BEDROCK = "bedrock"
    GEMINI = "gemini"
    MISTRAL = "mistral"
    COHERE = "cohere"
    OLLAMA = "ollama"


class Scope(StrEnum):
    """Who shares a set of limits: all callers, those of one model, or those of one key."""

    ACCOUNT = "account"
    MODEL = "model"
    KEY = "key"


_COUNTS = (
    "itpm",
    "otpm",
    "rpd",
    "concurrency",
    "burndown",
    "most_output",
    "acceleration_start",
)


class SimOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider account.

    `latency` is the mean time to the first token, in seconds of the provider. With `speed`
    its time runs that many times faster than the caller's: limits refill, answers come and
    reported durations shrink accordingly.

    Limits that are None are the provider's own: no limit per day or on concurrency, `itpm`
    as many as `tpm`, `otpm` a fifth of it, and `smoothing` (the seconds over which requests
    per minute are enforced as well) as `rules` has it, where 0 is none.

    With `acceleration`, requests are refused that make use grow too fast: in any
    `acceleration_seconds` at most so many times those of the seconds before, or
    `acceleration_start` where that is more.

    `fault` has rules as `faults.notation` reads them: `drop-after-chunks=3 @ 0.01`.
    """

    rpm: int = 500
    tpm: int = 200_000
    itpm: int | None = None
    otpm: int | None = None
    rpd: int | None = None
    concurrency: int | None = None
    acceleration: float | None = None
    acceleration_start: int = 10
    acceleration_seconds: float = 10.0
    rules: Rules = Rules.AUTO
    scope: Scope = Scope.ACCOUNT
    window: Window = Window.BUCKET
    charge: Charge = Charge.MAX
    smoothing: float | None = None
    burndown: int = 5
    most_output: int = 4096
    latency: float = 0.5
    tokens_per_second: float = 80.0
    speed: float = 1.0
    seed: int = 0
    fault: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rpm < 1:
            raise InvalidOptionError("rpm", self.rpm, "at least 1 request per minute")
        if self.window is Window.SECOND and self.rpm < 60:  # noqa: PLR2004 - seconds per minute
            allowed = "at least 60 with one-second windows (one request per second)"
            raise InvalidOptionError("rpm", self.rpm, allowed)
        if self.tpm < 1:
            raise InvalidOptionError("tpm", self.tpm, "at least 1 token per minute")
        for field in _COUNTS:
            count: int | None = getattr(self, field)
            if count is not None and count < 1:
                raise InvalidOptionError(field, count, "at least 1")
        if self.acceleration is not None and not 1 < self.acceleration < math.inf:
            raise InvalidOptionError("acceleration", self.acceleration, "more than 1")
        for field in ("latency", "smoothing"):
            seconds: float | None = getattr(self, field)
            if seconds is not None and not (seconds >= 0 and math.isfinite(seconds)):
                raise InvalidOptionError(field, seconds, "zero or a positive number of seconds")
        for field in ("tokens_per_second", "speed", "acceleration_seconds"):
            value: float = getattr(self, field)
            if not (value > 0 and math.isfinite(value)):
                raise InvalidOptionError(field, value, "a positive number")
        for rule in self.fault:
            try:
                parse_rule(rule)
            except FaultError as error:
                raise InvalidOptionError("fault", rule, f"a fault ({error})") from error
