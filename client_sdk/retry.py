"""When to ask the service again. Pure.

Only failures of the network and of the store are repeated: with the same request id they charge
once. A refusal is an answer.
"""

from client_sdk.errors import ServiceUnavailable
from client_sdk.options import LimiterOptions

_MOST_ASKED = 1.0
"""Seconds: a service that asks for more is asked again all the same, and may say so again."""


def pause_after(
    error: ServiceUnavailable, attempt: int, options: LimiterOptions, luck: float
) -> float:
    """Seconds to wait after the *attempt*-th failure, counted from 1; *luck* is in [0, 1).

    What the service asked for, and a little, so that callers come apart; otherwise a backoff that
    doubles, with full jitter (Brooker, "Exponential Backoff and Jitter", 2015).
    """
    if error.retry_after is not None:
        return min(error.retry_after, _MOST_ASKED) + luck * options.backoff
    return luck * min(options.max_backoff, options.backoff * 2.0 ** (attempt - 1))
