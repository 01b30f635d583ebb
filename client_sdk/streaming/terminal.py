"""How a stream ended, and what of it is reported when the lease is settled."""

from enum import StrEnum

from limiter_wire import Outcome


class StreamOutcome(StrEnum):
    """The one terminal state of a stream. Only the first three carry a whole answer."""

    COMPLETED = "completed"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    CANCELLED = "cancelled"
    TRUNCATED = "truncated"
    INTERRUPTED = "interrupted"
    STALLED_FIRST_TOKEN = "stalled_first_token"  # noqa: S105  # no password
    STALLED_CONTENT = "stalled_content"
    STALLED_BYTES = "stalled_bytes"
    PROVIDER_ERROR = "provider_error"
    PROTOCOL_ERROR = "protocol_error"
    NOT_AN_EVENT_STREAM = "not_an_event_stream"
    EMPTY = "empty"

    @property
    def whole(self) -> bool:
        """Whether the provider said that the answer is over, and why."""
        return self in _WHOLE


_WHOLE = frozenset({StreamOutcome.COMPLETED, StreamOutcome.LENGTH, StreamOutcome.CONTENT_FILTER})

_REPORTED = {
    StreamOutcome.COMPLETED: Outcome.SUCCESS,
    # Cut by max_tokens: the provider did what it was asked.
    StreamOutcome.LENGTH: Outcome.SUCCESS,
    StreamOutcome.CONTENT_FILTER: Outcome.CONTENT_FILTERED,
    StreamOutcome.CANCELLED: Outcome.CANCELLED,
    StreamOutcome.TRUNCATED: Outcome.STREAM_INTERRUPTED,
    StreamOutcome.INTERRUPTED: Outcome.STREAM_INTERRUPTED,
    StreamOutcome.STALLED_FIRST_TOKEN: Outcome.TIMEOUT,
    StreamOutcome.STALLED_CONTENT: Outcome.TIMEOUT,
    StreamOutcome.STALLED_BYTES: Outcome.STREAM_INTERRUPTED,
    StreamOutcome.PROVIDER_ERROR: Outcome.SERVER_ERROR,
    StreamOutcome.PROTOCOL_ERROR: Outcome.MALFORMED_STREAM,
    StreamOutcome.NOT_AN_EVENT_STREAM: Outcome.MALFORMED_STREAM,
    StreamOutcome.EMPTY: Outcome.STREAM_INTERRUPTED,
}


def reported(outcome: StreamOutcome, category: Outcome | None = None) -> Outcome:
    """What to settle with; *category* is that of a provider error, where it is known."""
    if outcome is StreamOutcome.PROVIDER_ERROR and category is not None:
        return category
    return _REPORTED[outcome]
