"""Lengths of time as people write them."""

from functools import lru_cache
from typing import Annotated

import msgspec

Duration = Annotated[
    float | str, msgspec.Meta(description='Seconds as a number, or "90s", "5m", "1h", "500ms".')
]


PERIODS: dict[str, float] = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
"""Seconds of the named periods that are always equally long; a month is not."""

_UNITS: dict[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@lru_cache(1024)
def seconds(value: Duration) -> float:
    """Seconds of a duration such as `120`, "90s", "5m", "1h" or "500ms".

    Raises ValueError when it is not one, or not positive.
    """
    if isinstance(value, str):
        text = value.strip()
        unit = next((u for u in sorted(_UNITS, key=len, reverse=True) if text.endswith(u)), "")
        try:
            number = float(text.removesuffix(unit)) * _UNITS.get(unit, 1)
        except ValueError:
            number = float("nan")
    else:
        number = float(value)
    if not 0 < number <= 366 * 86_400:
        raise ValueError(
            f'{value!r} is no duration; allowed: seconds, or "90s", "5m", "1h", "500ms"'
        )
    return number
