"""What a limiter can be told, as one frozen value."""

import re
from typing import Literal, get_args

import msgspec

from client_sdk.alone import OnServiceLoss

Channel = Literal["auto", "off", "only"]

_NAME = re.compile(r"[!-~]{1,200}")


class LimiterOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds.

    `timeout` bounds one HTTP exchange with the service, `connect_timeout` its connection.
    `attempts` is how often a call is sent when the network or the store fails; every
    repeat carries the same request id, so it charges once. Between attempts the SDK waits
    `backoff` doubled each time, up to `max_backoff`, with full jitter.

    `channel` chooses the way to the service: `auto` is one WebSocket for everything, and
    HTTP where none can be opened; `off` is HTTP alone, `only` never is. `timeout` bounds
    what travels over the channel too; an acquire may take its `max_wait` longer.

    `worker` is what this process is called, so that the breaker can tell several workers that
    see failures from one that is broken; None is a random name, one for each process. While the
    breaker refuses a resource, `remember_refusals` refuses it here, and asks the service once a
    second; without it every acquire asks.

    A service with TLS is known by the authorities in `ca_file`, a PEM file (None: those of the
    system), and knows this process by `certificate`, a PEM file that may hold the key too, else
    `certificate_key` does.

    `on_service_loss` is what happens while the service cannot be reached. `degrade` grants here,
    within `share` of the limits last seen of a resource: a part of each (0.25), or how many
    processes like this one there are (4). `open` grants everything. Both are charged when the
    service is back, and `lease.degraded` says so. `closed` raises ServiceUnavailable, as
    `degrade` does for what was never granted before.
    """

    timeout: float = 2.0
    connect_timeout: float = 0.5
    attempts: int = 4
    backoff: float = 0.05
    max_backoff: float = 1.0
    connections: int = 4
    channel: Channel = "auto"
    worker: str | None = None
    remember_refusals: bool = True
    ca_file: str | None = None
    certificate: str | None = None
    certificate_key: str | None = None
    on_service_loss: OnServiceLoss = "degrade"
    share: float = 0.1

    @property
    def part(self) -> float:
        """The part of each limit that this process may use alone."""
        return self.share if self.share <= 1 else 1 / self.share

    def __post_init__(self) -> None:
        for name in ("timeout", "connect_timeout", "backoff", "max_backoff"):
            value = getattr(self, name)
            if not 0 < value <= 3600:  # noqa: PLR2004  # an hour
                raise ValueError(f"{name}={value!r}: allowed is more than 0, at most 3600 seconds")
        if self.channel not in get_args(Channel):
            allowed = ", ".join(get_args(Channel))
            raise ValueError(f"channel={self.channel!r}: allowed is {allowed}")
        if self.worker is not None and not _NAME.fullmatch(self.worker):
            raise ValueError(
                f"worker={self.worker!r}: allowed are 1 to 200 visible ASCII characters"
            )
        if self.on_service_loss not in get_args(OnServiceLoss):
            allowed = ", ".join(get_args(OnServiceLoss))
            raise ValueError(f"on_service_loss={self.on_service_loss!r}: allowed is {allowed}")
        if not 0 < self.share <= 1_000_000:  # noqa: PLR2004  # processes
            raise ValueError(
                f"share={self.share!r}: allowed is a part of each limit, up to 1, or a number of "
                "processes"
            )
        for name, most in (("attempts", 20), ("connections", 64)):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise ValueError(f"{name}={value!r}: allowed is 1 to {most}")
