"""What a process holds, and whether it grows."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

_PAGE = os.sysconf("SC_PAGE_SIZE")


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def files(pid: int) -> int:
    """Files and connections that a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # it is no directory to be walked


class Drift(msgspec.Struct, frozen=True):
    """A straight line through samples: where it begins and ends, and what it has gained."""

    first: float
    last: float

    @property
    def percent(self) -> float:
        """The gain, of where it began."""
        return (self.last / self.first - 1) * 100 if self.first else 0.0


def drift(times: Sequence[float], values: Sequence[float]) -> Drift:
    """The line of least squares through *values*, from the first time to the last."""
    count = len(times)
    middle, mean = sum(times) / count, sum(values) / count
    spread = sum((time - middle) ** 2 for time in times)
    slope = (
        sum((t - middle) * (v - mean) for t, v in zip(times, values, strict=True)) / spread
        if spread
        else 0.0
    )
    return Drift(mean + slope * (times[0] - middle), mean + slope * (times[-1] - middle))
