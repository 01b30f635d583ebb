"""What operators order of running replicas, and what these say of themselves."""

from typing import Annotated, Any, Literal

import msgspec

from limiter_wire._base import Name, Wire

LogLevel = Literal["debug", "info", "warning", "error"]
Ttl = Annotated[float, msgspec.Meta(gt=0, le=31_622_400)] | None
Reason = Annotated[str, msgspec.Meta(max_length=500)]


class Drain(Wire, frozen=True, kw_only=True):
    """Grant nothing new for `ttl` seconds (`null`: until it is cleared): at one replica, or
    everywhere.
    """

    ttl: Ttl
    reason: Reason = ""
    replica: Name | None = None


class LogLevelOrder(Wire, frozen=True, kw_only=True):
    """Log from `level` on for `ttl` seconds (`null`: until it is cleared): at one replica, or
    everywhere.
    """

    level: LogLevel
    ttl: Ttl
    reason: Reason = ""
    replica: Name | None = None


class FleetOrder(Wire, frozen=True, kw_only=True):
    """An order in force: `kind` (`drain`, `log_level`), of which replica (`*`: all), who gave it
    when, until when it holds (none: until it is cleared), and why. Times are Unix seconds.
    """

    kind: str
    replica: str
    value: str
    since: float
    until: float | None
    actor: str
    reason: str


class ReplicaView(Wire, frozen=True, kw_only=True):
    """One replica that has given a sign of life in the last seconds.

    `started` is in Unix seconds, `config` the version of its configuration, `config_problem` why
    a newer file is not in force.
    """

    name: str
    version: str
    started: float
    config: str
    log_level: str
    draining: bool = False
    config_problem: str | None = None


class FleetView(Wire, frozen=True, kw_only=True):
    """Every replica over this store, and what is ordered of them.

    They are `agreed` when all have the same configuration. `answered_by` is who says so.
    """

    answered_by: str
    agreed: bool
    replicas: list[ReplicaView]
    orders: list[FleetOrder]


class ConfigFault(Wire, frozen=True, kw_only=True):
    """One thing that is wrong: where in the file, and what is allowed there."""

    path: str
    message: str


class ConfigChange(Wire, frozen=True, kw_only=True):
    """What has another value than before; None stands for nothing at all."""

    path: str
    before: Any = None
    after: Any = None


class ConfigView(Wire, frozen=True, kw_only=True):
    """The configuration in force at one replica.

    Replicas with the same `version` decide alike: it is a digest of all that decides. `read_at`
    is when it was read, in Unix seconds; `faults` why a newer file is not in force. In `config`
    every limit stands in the long form, with what its provider's preset adds.
    """

    replica: str
    version: str
    source: str
    read_at: float
    faults: list[ConfigFault]
    config: dict[str, Any]


class ConfigText(Wire, frozen=True, kw_only=True):
    """The text of a pools file that is to be checked."""

    text: str
    format: Literal["yaml", "toml", "json"] = "yaml"


class ConfigVerdict(Wire, frozen=True, kw_only=True):
    """What a replica would do with a file: every fault of it, else every change (the first 500
    of them) against what is in force, and what an operator may want to know.
    """

    valid: bool
    version: str | None = None
    faults: list[ConfigFault] = []
    changes: list[ConfigChange] = []
    notes: list[str] = []


class ReloadOrder(Wire, frozen=True, kw_only=True):
    """Read the pools file again, at every replica."""

    reason: Reason = ""


class Reloaded(Wire, frozen=True, kw_only=True):
    """What this replica's file has changed (the first 500 changes); the others read theirs."""

    replica: str
    before: str
    version: str
    changes: list[ConfigChange]
