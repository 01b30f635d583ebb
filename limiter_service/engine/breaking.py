"""The breaker's words and numbers: policies for the scripts, outcome classes, views. Pure."""

import math
from collections.abc import Sequence
from enum import IntEnum
from zlib import crc32

import msgspec

from limiter_service.config import BreakerConfig, seconds
from limiter_service.store.packing import pack
from limiter_wire import (
    BreakerError,
    BreakerProbes,
    BreakerRate,
    BreakerRates,
    BreakerState,
    BreakerView,
    BreakerWindow,
    ErrorCode,
    Outcome,
    OverrideMode,
    OverrideView,
    ProviderView,
    Settle,
)

_MICRO = 1_000_000
_BUCKETS, _FIELDS, _WINDOW, _WINDOW_END, _PROBES = 12, 6, 7, 79, 103
_WORKERS = 32
_DAY = 86_400.0
_BURST = 0.25  # failures within this time are one event, unless it hits several workers
_RETRY_MEMORY = 10.0  # for how long a first attempt allows its share of a retry
_OFF = 2.0  # a share that is never reached
_SEVERAL = 2  # open models that speak against their provider, not against themselves


class Class(IntEnum):
    """What an outcome is to a circuit (lua/lib/breaker)."""

    SUCCESS = 1
    FAILURE = 2
    THROTTLE = 3
    NEUTRAL = 4
    QUOTA = 5
    REFUSED = 6
    QUOTA_OF_MODEL = 7
    REFUSED_OF_MODEL = 8


CLASSES: dict[Outcome, Class] = {
    Outcome.SUCCESS: Class.SUCCESS,
    Outcome.OVERLOADED: Class.FAILURE,
    Outcome.SERVER_ERROR: Class.FAILURE,
    Outcome.TIMEOUT: Class.FAILURE,
    Outcome.CONNECTION: Class.FAILURE,
    Outcome.STREAM_INTERRUPTED: Class.FAILURE,
    Outcome.MALFORMED_STREAM: Class.FAILURE,
    Outcome.RATE_LIMITED: Class.THROTTLE,
    Outcome.QUOTA_EXHAUSTED: Class.QUOTA,
    Outcome.AUTH: Class.REFUSED,
    Outcome.PERMISSION: Class.REFUSED,
    # A provider that says so is well, and one that was cancelled has not spoken.
    Outcome.INVALID_REQUEST: Class.NEUTRAL,
    Outcome.CONTEXT_LENGTH_EXCEEDED: Class.NEUTRAL,
    Outcome.NOT_FOUND: Class.NEUTRAL,
    Outcome.CONTENT_FILTERED: Class.NEUTRAL,
    Outcome.CANCELLED: Class.NEUTRAL,
}
"""What each outcome does: only failures speak against a provider."""

KINDS = tuple(Outcome)
"""Outcomes by their number in what a circuit keeps of its last errors."""

_KINDS, _STATUSES = 64, 1024  # an error as a number: outcome, status, digest plus one


def class_of(report: Settle) -> Class:
    """What a report is to a circuit: quota and credentials may be one model's."""
    found = CLASSES[report.outcome]
    if report.cause is not None and report.cause.reach == "model":
        return _OF_MODEL.get(found, found)
    return found


_OF_MODEL = {Class.QUOTA: Class.QUOTA_OF_MODEL, Class.REFUSED: Class.REFUSED_OF_MODEL}


def error_number(report: Settle) -> int:
    """What a circuit keeps of a failure, in one number."""
    cause = report.cause
    if cause is None:
        return KINDS.index(report.outcome)
    digest = 0 if cause.digest is None else cause.digest + 1
    return KINDS.index(report.outcome) + _KINDS * ((cause.status or 0) + _STATUSES * digest)


def _error(number: int, time: float) -> BreakerError:
    rest, kind = divmod(number, _KINDS)
    digest, status = divmod(rest, _STATUSES)
    return BreakerError(
        outcome=KINDS[kind],
        time=time,
        status=status or None,
        digest=f"{digest - 1:08x}" if digest else None,
    )


REASONS = (None, "open", "probing", "cooldown", "forced_open", "latched", "retry_budget")
"""Why the gate refuses, by its number."""

_PROBE, _EARLY, _STATE, _RETRY, _TAKEN = 32, 64, 128, 512, 1024  # marks of a lease (lua/lib/lease)
COUNTED = "counted"
_TAKEN_FOR = (COUNTED, COUNTED, "voted", "stale", "late", "ignored")
_LAST_COUNTED = 1

_STATES = (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN)
_MODES = (None, OverrideMode.OPEN, OverrideMode.CLOSED, OverrideMode.OBSERVE)
_LATCHES = (None, "quota_exhausted", "credentials_refused")
CIRCUITS = tuple((state, probe) for state in _STATES for probe in (False, True))
"""What a lease tells of the circuit, by the number that `circuit` gives it: its state, and whether
the call is a probe.
"""

MODE_NUMBERS = {mode: number for number, mode in enumerate(_MODES) if mode is not None}


def policy(config: BreakerConfig, model: str, place: int) -> bytes:
    """The policy that the scripts read (lua/lib/breaker), with the model's name behind it;
    nothing where the breaker is off. *place* is that of the model's scope in its chain.
    """
    if not config.enabled:
        return b""
    longest = _us(config.max_open)
    life = max(_DAY * _MICRO, 2 * longest, 2 * _us(config.window))
    return (
        pack(
            [
                life,
                -1 if config.retry_ratio is None else config.retry_ratio,
                config.retry_floor / _MICRO,
                _RETRY_MEMORY * _MICRO,
                max(1, _us(config.window) // _BUCKETS),
                config.min_calls,
                config.failure_rate,
                _OFF if config.slow_rate is None else config.slow_rate,
                config.consecutive,
                config.workers,
                _us(config.open),
                longest,
                config.jitter,
                _us(config.decay),
                config.probes,
                config.successes,
                _us(config.probe_ttl),
                config.max_lost,
                _OFF if config.throttle_rate is None else config.throttle_rate,
                0 if config.ramp is None else _us(config.ramp),
                _BURST * _MICRO,
                _us(config.quota_latch),
                _us(config.credential_latch),
                config.credential_failures,
                config.cooldown == "pool",
                place,
            ]
        )
        + model.encode()
    )


def marks(worker: str | None, attempt: int) -> float:
    """What a request says to the breaker: who calls, and whether it is a retry."""
    return worker_bit(worker) + (_RETRY if attempt > 1 else 0)


def can_wait(refusal: Sequence[float], patience: float) -> bool:
    """Whether what a gate refuses may pass within *patience* microseconds, by waiting alone."""
    why, wait, _ = refusal
    return REASONS[int(why)] != "retry_budget" and 0 <= wait <= patience


def state_in(marks: float) -> str:
    """The state of the circuit that the marks of a lease tell."""
    return _STATES[int(marks) // _STATE % 4]


def circuit(marks: float) -> int:
    """What the marks of a lease tell of the circuit, as a place in CIRCUITS."""
    known = int(marks)
    return known // _STATE % 4 * 2 + (known & _PROBE > 0)


def state_of(number: float) -> str:
    """The name of a state."""
    return _STATES[int(number)]


def taken_for(marks: float) -> str:
    """What a report was taken for: COUNTED, `voted` (a probe's), `stale`, `late` (of a probe
    whose time was over), or `ignored`.
    """
    return _TAKEN_FOR[int(marks) // _TAKEN % 8]


def is_counted(marks: float) -> bool:
    """Whether a report was taken for what nearly all are: COUNTED."""
    return int(marks) // _TAKEN % 8 <= _LAST_COUNTED


def is_early(marks: float) -> bool:
    """Whether the first token of the call was reported."""
    return bool(int(marks) & _EARLY)


def is_probe(marks: float) -> bool:
    """Whether a lease is a probe."""
    return bool(int(marks) & _PROBE)


class Told(msgspec.Struct, frozen=True):
    """Why the breaker refuses, for people and for programs."""

    code: ErrorCode
    reason: str | None
    detail: str


def told(why: int, latch: int, resource: str, wait: float) -> Told:
    """The words for a refusal of the gate; *wait* is in seconds, negative when nobody knows."""
    reason = REASONS[why]
    match reason:
        case "open":
            detail = f"too many calls have failed; it is tried again in {wait:.3f} s"
            return Told(ErrorCode.BREAKER_OPEN, reason, detail)
        case "probing":
            detail = "it is being tried whether the provider is well again"
            return Told(ErrorCode.BREAKER_OPEN, reason, detail)
        case "forced_open":
            until = "until somebody clears it" if wait < 0 else f"for {wait:.3f} s"
            return Told(ErrorCode.BREAKER_OPEN, reason, f"an operator holds it open {until}")
        case "cooldown":
            detail = f"the provider asked for a pause; it ends in {wait:.3f} s"
            return Told(ErrorCode.COOLDOWN, reason, detail)
        case "latched":
            pool, _, model = resource.partition("/")
            what = _LATCH_TEXTS[latch].format(pool=pool, model=model)
            detail = f"{what}; one call may try again in {wait:.3f} s, or after a reset"
            return Told(ErrorCode.LATCHED, reason, detail)
        case _:
            detail = f"the fleet has retried as much as it may; again in {wait:.3f} s"
            return Told(ErrorCode.RETRY_BUDGET, None, detail)


_LATCH_TEXTS = (
    "pool {pool} is latched",
    "the provider says that the quota of pool {pool} is exhausted",
    "the provider refuses the credentials of pool {pool}",
    "the provider says that the quota of model {model} is exhausted",
    "the provider refuses the credentials of pool {pool} for model {model}",
)


def worker_bit(worker: str | None) -> int:
    """Which of 32 bits stands for a worker in the sets of a circuit; nobody is bit 0."""
    return crc32(worker.encode()) % _WORKERS if worker else 0


class Circuit(msgspec.Struct, frozen=True, kw_only=True):
    """A stored circuit, decoded; times in the circuit's own microseconds."""

    generation: int = 1
    skew: float = 0.0
    seen: float = 0.0
    span: float = 0.0
    state: int = 0
    since: float = 0.0
    open_until: float = 0.0
    opened: int = 0
    closed_at: float = 0.0
    cool: float = 0.0
    override: int = 0
    override_until: float = 0.0
    passed: int = 0
    lost: int = 0
    run: int = 0
    newest: float = 0.0
    latch: int = 0
    refusals: int = 0
    errors: tuple[tuple[int, float], ...] = ()
    window: tuple[float, ...] = (0.0,) * (_BUCKETS * _FIELDS)
    probes: tuple[tuple[float, float], ...] = ()


def decode(numbers: Sequence[float] | None) -> Circuit:
    """The circuit behind its numbers; None is one that nobody has written."""
    if not numbers:
        return Circuit()
    n = numbers
    return Circuit(
        generation=int(n[1]),
        skew=n[2],
        seen=n[3],
        span=n[4],
        newest=n[6],
        window=tuple(n[_WINDOW:_WINDOW_END]),
        state=int(n[79]),
        since=n[80],
        open_until=n[81],
        opened=int(n[82]),
        closed_at=n[83],
        cool=n[84],
        override=int(n[85]),
        override_until=n[86],
        passed=int(n[88]),
        lost=int(n[89]),
        run=int(n[90]),
        latch=int(n[100]),
        refusals=int(n[101]),
        errors=tuple((int(n[i]), n[i + 1]) for i in (93, 95, 97) if n[i + 1] > 0),
        probes=tuple((n[i], n[i + 1]) for i in range(_PROBES, len(n), 2)),
    )


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A stored pin (lua/lib/pin), decoded; times in its own microseconds."""

    skew: float = 0.0
    seen: float = 0.0
    balance: float = math.inf
    latch: int = 0
    until: float = 0.0
    since: float = 0.0
    trial_until: float = 0.0
    refused: int = 0
    cool: float = 0.0

    def now(self, wall: float) -> float:
        """The pin's own time at *wall*."""
        return max(wall + self.skew, self.seen)


def decode_pin(numbers: Sequence[float] | None) -> Pin:
    """The pin behind its numbers; None is one that nobody has written."""
    if not numbers:
        return Pin()
    n = numbers
    return Pin(
        skew=n[1],
        seen=n[2],
        balance=n[3],
        latch=int(n[4]),
        until=n[5],
        since=n[6],
        trial_until=n[8],
        refused=int(n[9]),
        cool=n[10],
    )


class Note(msgspec.Struct, frozen=True):
    """Who holds a circuit, and why."""

    actor: str
    reason: str


def view(
    resource: str,
    config: BreakerConfig,
    circuit: Circuit,
    pin: Pin,
    note: Note | None,
    wall: float,
) -> BreakerView:
    """A circuit as an operator sees it at *wall* (the store's clock, in microseconds)."""
    now = max(wall + circuit.skew, circuit.seen)
    held = circuit.override
    if held and 0 <= circuit.override_until <= now:
        held = 0
    mode = _MODES[held]
    state = _STATES[circuit.state]
    live = [until for _, until in circuit.probes if until > now]
    reason, wait = _refusal(config, circuit, held, live, now)
    pinned, longer = (None, 0.0) if held else _pinned(pin, wall)
    if pinned is not None and (reason is None or (wait is not None and longer > wait)):
        reason, wait = pinned, longer
    opened, longest = circuit.opened, seconds(config.max_open)
    if circuit.state == 0:
        opened = max(0, opened - int((now - circuit.closed_at) // _us(config.decay)))

    def time(then: float) -> float | None:
        return (then - circuit.skew) / _MICRO if then > 0 else None

    return BreakerView(
        resource=resource,
        state=state,
        effective=_effective(state, mode),
        generation=circuit.generation,
        since=time(circuit.since),
        retry_after=wait,
        reason=reason,
        window=_window(config, circuit, now),
        rates=_rates(config, circuit, now),
        consecutive=circuit.run,
        probes=BreakerProbes(
            limit=config.probes,
            needed=config.successes,
            held=len(live),
            expires=time(min(live)) if live else None,
            ok=circuit.passed,
            lost=circuit.lost,
        ),
        latch=_LATCHES[circuit.latch],
        credentials_refused=circuit.refusals,
        open_count=circuit.opened,
        next_open_duration=min(longest, seconds(config.open) * 2.0 ** min(opened, 60)),
        cooldown_until=time(circuit.cool) if circuit.cool > now else None,
        ramp=_ramp(config, circuit, now),
        override=None
        if mode is None
        else OverrideView(
            mode=mode,
            until=time(circuit.override_until),
            actor=note.actor if note else "",
            reason=note.reason if note else "",
        ),
        last_errors=[_error(number, time(at) or 0.0) for number, at in circuit.errors],
    )


def _effective(state: BreakerState, mode: OverrideMode | None) -> BreakerState:
    match mode:
        case None:
            return state
        case OverrideMode.OPEN:
            return BreakerState.OPEN
        case _:
            return BreakerState.CLOSED


def _refusal(
    config: BreakerConfig, circuit: Circuit, held: int, live: Sequence[float], now: float
) -> tuple[str | None, float | None]:
    """Why a call would be refused, and for how long; as `gate` in lua/lib/breaker."""
    if held == 1:
        until = circuit.override_until
        return "forced_open", None if until < 0 else (until - now) / _MICRO
    if held:
        return None, None
    if circuit.state == 1 and now < circuit.open_until:
        why = "latched" if circuit.latch else "open"
        return why, (max(circuit.open_until, circuit.cool) - now) / _MICRO
    if circuit.cool > now:
        return "cooldown", (circuit.cool - now) / _MICRO
    busy = len(live) >= config.probes or len(live) + circuit.passed >= config.successes
    if circuit.state == 2 and live and busy:  # noqa: PLR2004  # half-open
        return "probing", min(1.0, (min(live) - now) / _MICRO)
    return None, None


def _pinned(pin: Pin, wall: float) -> tuple[str | None, float]:
    """The same for what the whole pool is held by; as `pin_gate` in lua/lib/pin."""
    now = pin.now(wall)
    if pin.latch and now < pin.until:
        return "latched", (pin.until - now) / _MICRO
    if pin.latch and now < pin.trial_until:
        return "latched", min(1.0, (pin.trial_until - now) / _MICRO)
    return ("cooldown", (pin.cool - now) / _MICRO) if now < pin.cool else (None, 0.0)


def _live(circuit: Circuit, now: float) -> list[tuple[float, ...]]:
    """The buckets of the window that count at *now*."""
    if circuit.span <= 0:
        return []
    begun = max(0, math.floor(now / circuit.span) - int(circuit.newest))
    last = max(0, _BUCKETS - begun) * _FIELDS
    return [circuit.window[at : at + _FIELDS] for at in range(0, last, _FIELDS)]


def _window(config: BreakerConfig, circuit: Circuit, now: float) -> BreakerWindow:
    buckets = _live(circuit, now)
    ok, fail, slow, throttle = (int(sum(bucket[i] for bucket in buckets)) for i in range(4))
    failing = active = 0
    for bucket in buckets:
        failing, active = failing | int(bucket[4]), active | int(bucket[5])
    return BreakerWindow(
        seconds=seconds(config.window),
        ok=ok,
        fail=fail,
        slow=slow,
        throttle=throttle,
        failing_workers=failing.bit_count(),
        workers=active.bit_count(),
    )


def _rates(config: BreakerConfig, circuit: Circuit, now: float) -> BreakerRates:
    seen = _window(config, circuit, now)
    calls = seen.ok + seen.fail

    def rate(part: int, whole: int, threshold: float | None) -> BreakerRate:
        return BreakerRate(rate=part / whole if whole else 0.0, threshold=threshold)

    return BreakerRates(
        min_calls=config.min_calls,
        failure=rate(seen.fail, calls, config.failure_rate),
        slow=rate(seen.slow, calls, config.slow_rate),
        throttle=rate(seen.throttle, calls + seen.throttle, config.throttle_rate),
    )


def _ramp(config: BreakerConfig, circuit: Circuit, now: float) -> float:
    if circuit.state != 0 or circuit.closed_at == 0 or config.ramp is None:
        return 1.0
    return min(1.0, 0.1 + 0.9 * (now - circuit.closed_at) / _us(config.ramp))


def provider(
    pool: str,
    config: BreakerConfig,
    pin: Pin,
    breakers: Sequence[BreakerView],
    wall: float,
) -> ProviderView:
    """What the pool shares (lua/lib/pin), and what its circuits say about the provider."""
    broken = [
        each.resource.partition("/")[2]
        for each in breakers
        if each.state is not BreakerState.CLOSED
    ]
    now, skew, latch = pin.now(wall), pin.skew, pin.latch
    verdict = "down" if latch or len(broken) >= _SEVERAL else "degraded" if broken else "up"
    return ProviderView(
        pool=pool,
        verdict=verdict,
        open_models=broken,
        latch=_LATCHES[latch],
        latched_since=(pin.since - skew) / _MICRO if latch else None,
        latched_until=(pin.until - skew) / _MICRO if latch else None,
        cooldown_until=(pin.cool - skew) / _MICRO if pin.cool > now else None,
        credentials_refused=pin.refused,
        retries_left=_retries(config, pin.balance, now - pin.seen),
    )


def _retries(config: BreakerConfig, balance: float, elapsed: float) -> float | None:
    """What the retry budget holds *elapsed* microseconds after it held *balance*."""
    if config.retry_ratio is None:
        return None
    floor = config.retry_floor * _RETRY_MEMORY
    if balance == math.inf:
        return floor
    return floor + (balance - floor) * math.exp(-elapsed / (_RETRY_MEMORY * _MICRO))


def _us(value: float | str) -> int:
    return round(seconds(value) * _MICRO)
