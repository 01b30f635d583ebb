"""What happens, as `GET /v1/events` tells it."""

import msgspec

from limiter_wire._base import Wire


class Event(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened, at `time` (seconds since 1970).

    `type` is `breaker` (a circuit went `from` one state `to` another), `override`, `reset`,
    `probe_lost`, `would_open`, `cooldown`, `latch`; or, of the limit that `limit` names,
    `limit_lowered` and `limit_learned` (the provider states another than before) and
    `limit_override`; `degraded` `from` the store: a replica has lost the store of a pool and
    decides as `to` says, told by that replica alone, at once; `degraded` `to` the store: it was
    lost for `lasts` seconds, and what a replica has granted, `count` leases, is charged.
    `key_created` and `key_revoked` are of the API key that `key` names, and of no resource. So are
    `drain`, `log_level`, `config_reload` and `config_refused`, which speak of replicas: `replica`
    is the one that is meant (`*`: all), `detail` says what has changed, or what is wrong. `lasts`
    is in seconds.
    """

    time: float
    type: str
    resource: str | None = None
    actor: str | None = None
    reason: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    generation: int | None = None
    lasts: float | None = None
    count: int | None = None
    limit: str | None = None
    key: str | None = None
    replica: str | None = None
    detail: str | None = None
