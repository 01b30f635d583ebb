"""What the provider admits and what it refuses.

Pure: `now` is in the provider's own seconds, counted from its start. The windows are
written independently of the limiter's Lua, so that one can find the other wrong.
"""

import math
from enum import StrEnum
from typing import Protocol, assert_never

import msgspec

MINUTE = 60.0

# A level is a sum of float products: a request due at exactly this moment may miss by the
# last bits. It is charged in full, hence nothing drifts.
_FORGIVEN = 1e-6


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


def charge_of(rule: Charge, *, input_tokens: int, max_output: int, output: int) -> int:
    """The tokens that a request counts for; `max_output` is 0 when the caller set none."""
    match rule:
        case Charge.MAX:
            return max(input_tokens, max_output)
        case Charge.SUM:
            return input_tokens + max_output
        case Charge.ACTUAL:
            return input_tokens + output
        case _:
            assert_never(rule)


class Level(Protocol):
    """The state of one limit."""

    limit: float

    def remaining(self, now: float) -> float:
        """What could be taken now."""
        ...

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` fits if nothing else comes; 0 when it fits now."""
        ...

    def take(self, amount: float, now: float) -> None:
        """Spend `amount`, which fits."""
        ...

    def reset_after(self, now: float) -> float:
        """Seconds until the limit is as good as new if nothing else comes."""
        ...

    def allowed(self, now: float) -> float:
        """The most that could have been granted since the start."""
        ...


class Bucket:
    """Refills continuously; holds one minute of its limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._rate = limit / MINUTE
        self._level = limit
        self._at = 0.0

    def remaining(self, now: float) -> float:
        return min(self.limit, self._level + (now - self._at) * self._rate)

    def wait(self, amount: float, now: float) -> float:
        short = amount - self.remaining(now)
        return short / self._rate if short > _FORGIVEN else 0.0

    def take(self, amount: float, now: float) -> None:
        self._level = self.remaining(now) - amount
        self._at = now

    def reset_after(self, now: float) -> float:
        return (self.limit - self.remaining(now)) / self._rate

    def allowed(self, now: float) -> float:
        return self.limit + now * self._rate


class FixedWindow:
    """Counts from zero in each window of `width` seconds; the first begins at the start."""

    def __init__(self, limit: float, width: float) -> None:
        self.limit = limit
        self._width = width
        self._number = 0
        self._used = 0.0

    def remaining(self, now: float) -> float:
        return self.limit - (self._used if self._number == self._window(now) else 0.0)

    def wait(self, amount: float, now: float) -> float:
        return 0.0 if amount <= self.remaining(now) else self._left(now)

    def take(self, amount: float, now: float) -> None:
        self._used = self.limit - self.remaining(now) + amount
        self._number = self._window(now)

    def reset_after(self, now: float) -> float:
        return self._left(now) if self.remaining(now) < self.limit else 0.0

    def allowed(self, now: float) -> float:
        return self.limit * (self._window(now) + 1)

    def _window(self, now: float) -> int:
        return math.floor(now / self._width)

    def _left(self, now: float) -> float:
        return (self._window(now) + 1) * self._width - now


class Meter(StrEnum):
    """What a limit counts; also the `type` of the provider's error."""

    REQUESTS = "requests"
    TOKENS = "tokens"


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """One limit per minute, as the response headers tell it."""

    limit: int
    remaining: int
    reset_after: float


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """Both limits at one moment."""

    requests: Quota
    tokens: Quota


class Admitted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request runs and was charged."""

    quotas: Quotas


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request would fit after `retry_after`; `meter` is what it has to wait for."""

    meter: Meter
    used: int
    requested: int
    retry_after: float
    quotas: Quotas


class TooLarge(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request alone is larger than the limit: no wait will help."""

    requested: int
    quotas: Quotas


Decision = Admitted | Refused | TooLarge


class Budget:
    """The limits of one account: all of them are charged, or none."""

    def __init__(self, *, rpm: int, tpm: int, window: Window) -> None:
        bucket = window is Window.BUCKET
        self._requests: Level = Bucket(rpm) if bucket else FixedWindow(rpm, MINUTE)
        self._tokens: Level = Bucket(tpm) if bucket else FixedWindow(tpm, MINUTE)
        # The headers know nothing of the one-second windows, as at the providers that
        # have them: the requests of the minute are counted beside.
        self._seconds = FixedWindow(rpm / MINUTE, 1.0) if window is Window.SECOND else None

    def admit(self, tokens: int, now: float) -> Decision:
        """Charge one request of `tokens`, or say what it has to wait for."""
        if tokens > self._tokens.limit:
            return TooLarge(requested=tokens, quotas=self.quotas(now))
        for_tokens = self._tokens.wait(tokens, now)
        for_requests = max(level.wait(1, now) for level in self._request_levels())
        if for_tokens == 0 and for_requests == 0:
            self._tokens.take(tokens, now)
            for level in self._request_levels():
                level.take(1, now)
            return Admitted(quotas=self.quotas(now))
        by_tokens = for_tokens >= for_requests
        quotas = self.quotas(now)
        quota = quotas.tokens if by_tokens else quotas.requests
        return Refused(
            meter=Meter.TOKENS if by_tokens else Meter.REQUESTS,
            used=quota.limit - quota.remaining,
            requested=tokens if by_tokens else 1,
            retry_after=max(for_tokens, for_requests),
            quotas=quotas,
        )

    def quotas(self, now: float) -> Quotas:
        """Both limits as they stand."""
        return Quotas(requests=_quota(self._requests, now), tokens=_quota(self._tokens, now))

    def requests_allowed(self, now: float) -> float:
        """The most requests that could have been granted since the start."""
        return min(level.allowed(now) for level in self._request_levels())

    def tokens_allowed(self, now: float) -> float:
        """The most tokens that could have been granted since the start."""
        return self._tokens.allowed(now)

    def _request_levels(self) -> tuple[Level, ...]:
        return (self._requests, self._seconds) if self._seconds else (self._requests,)


def _quota(level: Level, now: float) -> Quota:
    return Quota(
        limit=int(level.limit),
        remaining=math.floor(level.remaining(now)),
        reset_after=level.reset_after(now),
    )
