"""When a stream counts as stuck. It is told what arrives and when; it has no clock.

Two clocks run: one for bytes of any kind, one for content (text, reasoning, refusals, audio,
pieces of tool calls). Pings keep a connection alive, and say nothing about an answer. Time
in which the consumer holds a chunk is not the provider's: it moves all limits but `total`.
"""

import msgspec

from client_sdk.streaming.terminal import StreamOutcome

_LONGEST = 86_400.0


class StreamTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in seconds; None is no limit.

    `connect` is for the transport. `first_byte` and `first_token` run from the start of the
    request, `idle_bytes` and `idle_content` from the last byte and the last content after
    the first. `total` bounds the whole call, the time of the consumer included.
    """

    connect: float | None = 10.0
    first_byte: float | None = 120.0
    first_token: float | None = 300.0
    idle_bytes: float | None = 120.0
    idle_content: float | None = 300.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0 < value <= _LONGEST:
                raise ValueError(
                    f"{name}={value!r}: allowed is more than 0, at most a day, or None"
                )


NO_TIMEOUTS = StreamTimeouts(
    connect=None, first_byte=None, first_token=None, idle_bytes=None, idle_content=None
)
"""For who has clocks of its own."""


class Stall(msgspec.Struct, frozen=True):
    """A limit that is over: which, when it was over, and what that means for the stream."""

    limit: str
    at: float
    outcome: StreamOutcome


class Liveness:
    """The two clocks of one stream.

    `last_byte`, `first_content` and `last_content` are set by the accumulator: a call for
    each chunk would be felt.
    """

    def __init__(self, timeouts: StreamTimeouts) -> None:
        self.started: float | None = None
        self.first_byte: float | None = None
        self.first_content: float | None = None
        self.last_content = 0.0
        self.last_byte = 0.0
        self.held = 0.0
        self._timeouts = timeouts
        self.paused: float | None = None
        # The start, later by the time that the consumer has taken since.
        self._origin = 0.0

    def start(self, now: float) -> None:
        """The request begins."""
        if self.started is None:
            self.started = self._origin = now

    def byte(self, now: float) -> None:
        """Bytes of any kind arrived: the head of the answer, a ping, content."""
        if self.first_byte is None:
            self.start(now)
            self.first_byte = now
        self.last_byte = now

    def pause(self, now: float) -> None:
        """The consumer has a chunk, and the provider no influence on when it is done."""
        if self.paused is None:
            self.paused = now

    def resume(self, now: float) -> None:
        """The consumer asks for more."""
        if self.paused is not None:
            took = max(0.0, now - self.paused)
            self.paused = None
            self.held += took
            self._origin += took
            self.last_byte += took
            self.last_content += took

    def reopen(self, now: float) -> None:
        """Another connection goes on with the stream: both clocks begin anew."""
        self.resume(now)
        self._origin = self.last_byte = self.last_content = now

    def deadline(self) -> float | None:
        """When to ask `expired` next."""
        nearest = self._nearest()
        return None if nearest is None else nearest.at

    def expired(self, now: float) -> Stall | None:
        """The limit that was over first, if one is over at *now*."""
        nearest = self._nearest()
        return nearest if nearest is not None and now >= nearest.at else None

    def _nearest(self) -> Stall | None:
        if self.started is None:
            return None
        limits = self._timeouts
        found: list[Stall] = []

        def add(name: str, since: float, limit: float | None, outcome: StreamOutcome) -> None:
            if limit is not None:
                found.append(Stall(name, since + limit, outcome))

        if self.paused is None:
            first = StreamOutcome.STALLED_FIRST_TOKEN
            if self.first_content is None:
                add("first_token", self._origin, limits.first_token, first)
            if self.first_byte is None:
                add("first_byte", self._origin, limits.first_byte, first)
            else:
                stalled = StreamOutcome.STALLED_BYTES
                add("idle_bytes", self.last_byte, limits.idle_bytes, stalled)
            if self.first_content is not None:
                stalled = StreamOutcome.STALLED_CONTENT
                add("idle_content", self.last_content, limits.idle_content, stalled)
        # The caller's own limit says nothing about the provider.
        add("total", self.started, limits.total, StreamOutcome.CANCELLED)
        return min(found, key=lambda stall: stall.at, default=None)
