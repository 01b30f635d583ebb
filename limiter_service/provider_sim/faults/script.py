"""What will be sent to one caller: a head, and steps after it."""

from collections.abc import Iterator

import msgspec

from limiter_service.provider_sim.dialects.base import Place


class Send(msgspec.Struct, frozen=True, tag=True):
    """Send bytes when they are due, `at` seconds of the provider after the admission."""

    data: bytes
    at: float
    place: Place = Place.CONTENT
    tokens: int = 0

    @property
    def is_chunk(self) -> bool:
        """Whether it carries output that the caller sees."""
        return self.tokens > 0 and bool(self.data)


class Pause(msgspec.Struct, frozen=True, tag=True):
    """Do nothing for some of the caller's seconds; None until the caller hangs up."""

    seconds: float | None


class Drop(msgspec.Struct, frozen=True, tag=True):
    """Close the connection, in order or with a reset."""

    reset: bool


Step = Send | Pause | Drop


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Status and headers; they leave `at` seconds of the provider after the admission."""

    status: int
    media_type: str
    headers: dict[str, str]
    length: int | None = None
    at: float = 0.0


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one caller gets. `before` comes before the head."""

    head: Head
    steps: Iterator[Step]
    before: tuple[Step, ...] = ()
