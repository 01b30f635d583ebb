"""What may stand in the pools file, part by part."""

from typing import Annotated, Literal

import msgspec

from limiter_service.config.durations import Duration
from limiter_service.prices import PriceConfig
from limiter_wire import MAX_AMOUNT, Meter

PositiveAmount = Annotated[float, msgspec.Meta(gt=0, le=MAX_AMOUNT)]
PositiveCount = Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=1000)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Reserve = Literal[
    "tokens",
    "input",
    "sum(input, max_output)",
    "max(input, max_output)",
    "input + expected_output",
    "unweighted(input, max_output)",
    "expected_output",
]
RESERVES_OF_MONEY = ("sum(input, max_output)", "input + expected_output", "input")
Learn = Literal["down", "both", "never"]
LimitName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}(?!\n)$")]
Calendar = Literal["minute", "hour", "day", "month"]

RAMP = "ramp"
"""Names the ramp of a limit, behind the limit's own name."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the file; unknown keys are refused."""


class RampConfig(_Section, frozen=True, kw_only=True):
    """How fast the use of a limit may grow, where a provider refuses what grows too fast.

    In one `period` at most `factor` times as much is used as in the period before, or `start`
    where that is more.
    """

    start: PositiveAmount
    """What may be used in a period from nothing, in the meter of the limit."""
    factor: Annotated[float, msgspec.Meta(gt=1, le=100)] = 2.0
    """How many times as much one period may use as the one before."""
    period: Duration = 60.0
    """The time over which use is compared."""


class LimitConfig(_Section, frozen=True, kw_only=True):
    """One limit in the long form."""

    meter: Meter
    """What is counted."""
    limit: PositiveAmount
    """The amount per period; for `concurrency`, how many leases may live at once."""
    name: LimitName | None = None
    """Names the limit in answers. Default: `METER-per-PERIOD`, as in `tokens-per-minute`."""
    per: float | str | None = None
    """The period: `second`, `minute`, `hour`, `day`, `month` (calendar only), seconds, or "90s"."""
    window: Literal["bucket", "sliding", "calendar"] | None = None
    """How the period is counted: refilled continuously, sliding, or aligned to a calendar.
    Default: as the provider does, else `bucket`."""
    burst: PositiveAmount | None = None
    """Capacity of a bucket. Default: as the provider allows, else `limit`."""
    timezone: str = "UTC"
    """IANA name of the zone whose minute, hour, day or month a calendar window follows."""
    reserve: Reserve | None = None
    """What an acquire holds until it is settled. Default: by provider and meter."""
    settle: Literal["actual", "none"] | None = None
    """`actual`: the reservation is replaced by real usage; `none`: it stays as reserved.
    Default: as the provider does, else `actual`."""
    weights: dict[Literal["input", "cache_read", "cache_write", "output", "reasoning"], Weight] = {}
    """Factors on the components of usage. Default: the provider's, else 1."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """`shadow`: evaluated and reported, and never refuses."""
    learn: Learn | None = None
    """What of the provider's own statements counts: `down`, a limit that is lower than this one;
    `both`, also one that is higher; `never`, none, and levels are not corrected either.
    Default: the pool's `learn` on models, `never` on a whole pool. Limits on tenants never do."""
    adaptive_burst: bool = False
    """Halve the burst whenever the provider refuses a call although it says that requests
    remain, and let it grow back over ten minutes. For buckets of `requests`."""
    aimd: bool = False
    """Cut the rate to 0.7 of what it is whenever the provider refuses a call and says nothing
    about this limit, and let it grow back: for accounts whose limit nobody knows. For buckets."""
    ramp: RampConfig | None = None
    """How fast use may grow. It stands as a limit of its own beside this one, named `NAME.ramp`."""


class Limited(_Section, frozen=True, kw_only=True):
    """Whatever carries limits: the short forms, and `limits` in the long form."""

    rpm: PositiveCount | None = None
    """Requests per minute."""
    rpd: PositiveCount | None = None
    """Requests per day."""
    tpm: PositiveCount | None = None
    """Tokens per minute."""
    tpd: PositiveCount | None = None
    """Tokens per day."""
    input_tpm: PositiveCount | None = None
    """Input tokens per minute."""
    output_tpm: PositiveCount | None = None
    """Output tokens per minute."""
    concurrency: PositiveCount | None = None
    """Leases alive at once."""
    limits: list[LimitConfig] = []
    """Limits in the long form."""


class ModelConfig(Limited, frozen=True, kw_only=True):
    """The limits of one model, or of each model that a pattern matches."""


class TenantConfig(Limited, frozen=True, kw_only=True):
    """A tenant's share of the queue, its limits, and its limits on single models."""

    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    """Share of the queue: a tenant of weight 4 is served four times as much as one of weight 1
    while both wait."""
    models: dict[str, ModelConfig] = {}
    """Limits of this tenant on single models, by name or pattern."""


class QueueConfig(_Section, frozen=True, kw_only=True):
    """How many may wait in the pool's queue, and how long at most."""

    max_waiters: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 10_000
    """How many may wait."""
    max_wait: Duration = 120.0
    """How long one may wait; a longer `max_wait` of a request counts as this."""
    priority_shares: dict[str, Share] = {}
    """Shares of the pool's limits that are kept for priorities: `"0-2": 0.3`. Others borrow
    what is not used, and give it back within one period of the limit."""


class BreakerConfig(_Section, frozen=True, kw_only=True):
    """When the circuit of a resource opens and how it closes again."""

    enabled: bool = True
    """Whether outcomes count and circuits refuse at all."""
    window: Duration = 60.0
    """The time over which calls are judged."""
    failure_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """The share of failed calls that opens the circuit."""
    min_calls: PositiveCount = 20
    """Fewer calls in the window are not judged."""
    consecutive: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 5
    """Failures in a row that open it, however few calls there are; 0: none do."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=32)] = 2
    """How many workers must see failures, or all where fewer are at work."""
    slow_ttft: Duration = 60.0
    """A first token that takes at least this long is slow."""
    slow_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = 0.8
    """The share of slow calls that opens it; none: slow calls never do."""
    throttle_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """The share of calls that the provider rate-limits that opens it; none: they never do."""
    open: Duration = 5.0
    """How long the circuit stays open the first time."""
    max_open: Duration = 300.0
    """How long it stays open at most, when it opens again and again. Also bounds what a
    provider's Retry-After can ask for."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1
    """By how much of itself an open time is spread, so that circuits do not probe in step."""
    decay: Duration = 60.0
    """The healthy time that takes back one doubling of the open time."""
    probes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    """Calls that may probe a half-open circuit at once, in the whole fleet."""
    successes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """Successful probes that close it."""
    probe_ttl: Duration = 60.0
    """How long a probe may take before another may try."""
    max_lost: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """Probes that never report, in a row, that open it again."""
    ramp: Duration | None = 10.0
    """After closing, the time in which buckets of the model go from a tenth of their rate
    to all of it; none: at once."""
    cooldown: Literal["model", "pool"] = "model"
    """What pauses when the provider says how long to wait: the model, or the whole pool."""
    quota_latch: Duration = 3600.0
    """How long the pool is latched when its quota is exhausted."""
    credential_latch: Duration = 600.0
    """How long the pool is latched when its credentials are refused."""
    credential_failures: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    """Refused credentials in a row that latch it."""
    retry_ratio: Fraction | None = 0.2
    """Retries that each first attempt allows; none: retries are not bounded."""
    retry_floor: Annotated[float, msgspec.Meta(ge=0, le=100_000)] = 1.0
    """Retries per second that are allowed without any first attempt."""


class BlocksConfig(_Section, frozen=True, kw_only=True):
    """Blocks: budget that workers hold and spend without asking (`prefetch` of the SDK)."""

    share: Fraction = 0.02
    """How much of each limit all blocks together may hold unspent; 0 forbids blocks."""
    hold: Duration = 2.0
    """For how long at most a block is held: what is not spent by then comes back."""


class PoolConfig(Limited, frozen=True, kw_only=True):
    """One provider account."""

    provider: str = "generic"
    """The provider: how it counts and enforces is the default of limits on pool and models."""
    tier: str | None = None
    """The account's tier: its published ceilings are the limits of models that have none."""
    models: dict[str, ModelConfig] = {}
    """Limits by model. A model that no entry matches is refused as unknown."""
    tenants: dict[str, TenantConfig] = {}
    """Limits by tenant. A tenant that no entry matches has none of its own."""
    prices: dict[str, PriceConfig] = {}
    """Prices by model, for limits on `cost_usd`. They go before those of the price file and
    of the library `genai-prices`."""
    cost_in_requests: bool = False
    """Whether callers say with each acquire what it costs (`cost_usd`): then limits on money
    need no price."""
    queue: QueueConfig = QueueConfig()
    """Who may wait, how long, and which priorities have a share of their own."""
    learn: Learn = "down"
    """What limits on models learn from the provider's headers, unless they say otherwise."""
    breaker: BreakerConfig = BreakerConfig()
    """When circuits of the pool's models open, and how they close again."""
    blocks: BlocksConfig = BlocksConfig()
    """What workers may hold and spend without asking."""
    on_store_loss: Literal["degrade", "open", "closed"] = "degrade"
    """What happens while the store is lost: each replica enforces its share of every limit, it
    grants everything and counts, or it refuses. What was granted is charged afterwards."""
    lease_ttl: Duration = 600.0
    """How long a lease lives unless the acquire or a renewal says otherwise."""
    remember: Duration = 60.0
    """How long a lease is known after it was settled or expired."""
    durability: Literal["fast", "replicated"] = "fast"
    """When a grant counts: at once, or when a replica of the store has it too (`WAIT`); without
    one it is refused with 503, and given to who asks again with its `request_id`."""
    cold_start: Fraction = 1.0
    """Fill of a limit whose state is new or was lost: 1 is full, 0 is spent."""


class Config(_Section, frozen=True, kw_only=True):
    """The whole file."""

    pools: dict[str, PoolConfig] = {}
    """The pools, by name: letters, digits, `.`, `_` and `-`."""
    price_file: str | None = None
    """A file of prices in the format of LiteLLM's `model_prices_and_context_window.json`;
    relative to this file."""
