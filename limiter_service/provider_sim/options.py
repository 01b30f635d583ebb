"""How a simulated provider behaves."""

import math

import msgspec

from limiter_service.provider_sim.limits import Charge, Window


class InvalidOptionError(ValueError):
    """An option has a value that no provider could have; says which, and what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(f"{field} is {value!r}, but must be {allowed}")


class SimOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider account.

    `latency` is the mean time to the first token, in seconds of the provider. With `speed`
    its time runs that many times faster than the caller's: limits refill, answers come and
    reported durations shrink accordingly.
    """

    rpm: int = 500
    tpm: int = 200_000
    window: Window = Window.BUCKET
    charge: Charge = Charge.MAX
    latency: float = 0.5
    tokens_per_second: float = 80.0
    speed: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rpm < 1:
            raise InvalidOptionError("rpm", self.rpm, "at least 1 request per minute")
        if self.window is Window.SECOND and self.rpm < 60:  # noqa: PLR2004 - seconds per minute
            allowed = "at least 60 with one-second windows (one request per second)"
            raise InvalidOptionError("rpm", self.rpm, allowed)
        if self.tpm < 1:
            raise InvalidOptionError("tpm", self.tpm, "at least 1 token per minute")
        if not (self.latency >= 0 and math.isfinite(self.latency)):
            raise InvalidOptionError(
                "latency", self.latency, "zero or a positive number of seconds"
            )
        for field in ("tokens_per_second", "speed"):
            value: float = getattr(self, field)
            if not (value > 0 and math.isfinite(value)):
                raise InvalidOptionError(field, value, "a positive number")
