"""What Sluicegate knows about providers: data and pure functions, for service and SDK alike.

`classify` says what a failed call means, `detect` whose it is, `read_limits` what its
headers tell, and `PROFILES` how each provider counts. Nothing here does I/O, reads a clock
or raises over what a provider sent.
"""

from limiter_wire.limits import SpentLimit
from limiter_wire.providers.classifying import classify, classify_local, lowered
from limiter_wire.providers.detection import Detected, by_host, detect
from limiter_wire.providers.failures import (
    Backoff,
    ContextTokens,
    Failure,
    Impact,
    Pin,
    Refund,
    Retry,
    Scope,
)
from limiter_wire.providers.profiles import (
    AS_OF,
    GENERIC,
    PROFILES,
    Charge,
    Profile,
    Shape,
    known_provider,
    profile,
)
from limiter_wire.providers.ratelimits import Observed, read_limits
from limiter_wire.providers.times import Moment, read_moment, read_words

__all__ = [
    "AS_OF",
    "GENERIC",
    "PROFILES",
    "Backoff",
    "Charge",
    "ContextTokens",
    "Detected",
    "Failure",
    "Impact",
    "Moment",
    "Observed",
    "Pin",
    "Profile",
    "Refund",
    "Retry",
    "Scope",
    "Shape",
    "SpentLimit",
    "by_host",
    "classify",
    "classify_local",
    "detect",
    "known_provider",
    "lowered",
    "profile",
    "read_limits",
    "read_moment",
    "read_words",
]
