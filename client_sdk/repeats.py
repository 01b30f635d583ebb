"""Whether a provider call that failed is made again, and when. Pure."""

import random

from client_sdk.outcomes import failure_of

LONGEST_PAUSE = 60.0
"""Seconds: who is asked to wait longer than this is not made to."""

PATIENCE = 2.0
"""Seconds that a repeat may wait for its turn: the pause that its own failure made for
everybody ends a little later than the one that it was told.
"""

_FIRST, _MOST = 0.5, 8.0


def pause_before(error: BaseException, attempt: int, spread: random.Random) -> float | None:
    """Seconds to wait after the failure of *attempt*; None when it should not be made again.

    What the provider asked for comes first; else exponential with full jitter.
    """
    failure = failure_of(error)
    if failure is None or not failure.retryable:
        return None
    asked = failure.retry_after
    if asked is not None:
        return asked + spread.uniform(0, 0.1) if asked <= LONGEST_PAUSE else None
    return spread.uniform(0, min(_MOST, _FIRST * 2.0 ** (attempt - 1)))


def id_of(request_id: str | None, attempt: int) -> str | None:
    """The request id of an attempt: each is a call of its own, and charges."""
    return request_id if request_id is None or attempt == 1 else f"{request_id}.{attempt}"
