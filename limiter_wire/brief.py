"""Limits said briefly, over a channel: what never changes of them once, then what is in them. Pure.

Of a bucket, what is left and when it is full again follow from its level, in units of its meter.
"""

from math import ceil, floor

import msgspec

_MICRO = 1_000_000
_FORGIVEN = 1e-6
"""Parts of a unit that arithmetic may have lost."""


def remaining(level: float) -> int:
    """Whole units that are left in a bucket; less than none after more was used than reserved."""
    return floor(level + _FORGIVEN)


def reset_after(level: float, capacity: float, rate: float) -> float:
    """Seconds until a bucket is full, which gets *rate* units a microsecond."""
    return ceil((capacity - level) / rate) / _MICRO if level < capacity else 0.0


class Form(msgspec.Struct, array_like=True):
    """Limits of a chain that a channel has told once in full: a number to find them by, and of each
    how much it holds and how many units it gets a microsecond.
    """

    id: int
    fills: list[tuple[float, float]]
