"""What a process goes by while it cannot reach the service: its part of the limits last seen.

Each limit of a resource is what the last answer said of it, times the part of this process; time
refills that as it refills the limit. Without an answer there is nothing to go by, so nothing is
granted. What is granted is remembered, to be charged and settled once the service is back; its
request id charges once, however often that is tried. Time is an argument; threads may share it.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Literal

import msgspec

from client_sdk._answers import Given
from client_sdk.errors import ServiceFault
from limiter_wire import Acquire, Granted, LimitState, Meter, Renewed, Settle, Settled

OnServiceLoss = Literal["degrade", "open", "closed"]

LOOK_EVERY = 0.5
"""Seconds between two questions to a service that cannot be reached."""

MOST = 10_000
"""Leases that are remembered until they are charged; no more are granted."""

PREFIX = "alone."
"""What the id of a lease begins with that this process has granted."""

_MOST_SEEN = 1000
_TTL = 600.0
_NEAR = 1e-9

_Key = tuple[str, str, str]


class AloneFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a limiter has done without its service: whether it is lost now, how often it was, how
    many leases were granted and refused then, how many of these are charged, and how many not.
    """

    lost: bool
    losses: int
    granted: int
    refused: int
    charged: int
    uncharged: int


class Grant(msgspec.Struct, kw_only=True):
    """A lease that was granted here; `lease` is its id at the service once it is charged."""

    request: Acquire
    at: float
    granted: Granted
    report: Settle | None = None
    lease: str | None = None


class Shortage(msgspec.Struct, frozen=True):
    """Why nothing is granted: the limit, and when it has room (None: nobody knows)."""

    limit: str
    retry_after: float | None
    limits: list[LimitState]


class _Share:
    """This process's part of one limit."""

    def __init__(self, seen: LimitState, part: float, seen_at: float, now: float) -> None:
        self.seen, self._at = seen, now
        self._per = seen.per or 0.0
        self._rate = seen.limit / seen.per * part if seen.per else 0.0
        self.level = seen.remaining * part
        self._most = self.level + seen.reset_after * self._rate
        self._whole = seen.limit * part
        self._resets = seen_at + seen.reset_after
        self._own: deque[tuple[float, float]] = deque()
        self._live: dict[str, float] = {}

    def left(self, now: float) -> float:
        """What can be taken at *now*."""
        if self.seen.meter is Meter.CONCURRENCY:
            self._live = {name: until for name, until in self._live.items() if until > now}
            return int(self.level + _NEAR) - len(self._live)
        if self.seen.window == "bucket":
            self.level = min(self._most, self.level + max(0.0, now - self._at) * self._rate)
            self._at = now
            return self.level
        while self._own and self._own[0][0] <= now - self._per:
            self._own.popleft()
        whole = self._whole if now >= self._resets else self.level
        return whole - sum(amount for _, amount in self._own)

    def wait(self, amount: float, now: float) -> float | None:
        """Seconds until *amount* fits; None when that is not known, or never."""
        short = amount - self.left(now)
        if short <= _NEAR:
            return 0.0
        if self.seen.meter is Meter.CONCURRENCY:
            return None
        if self.seen.window == "bucket":
            return short / self._rate if amount <= self._most and self._rate > 0 else None
        if amount > self._whole + _NEAR:
            return None
        if now < self._resets:
            return self._resets - now
        return self._own[0][0] + self._per - now if self._own else None

    def take(self, amount: float, now: float, name: str, until: float) -> None:
        """Charge *amount*."""
        if self.seen.meter is Meter.CONCURRENCY:
            self._live[name] = until
        elif self.seen.window == "bucket":
            self.level -= amount
        else:
            self._own.append((now, amount))

    def ended(self, name: str) -> None:
        """A lease has ended."""
        self._live.pop(name, None)

    def state(self, now: float) -> LimitState:
        """What a caller sees."""
        return msgspec.structs.replace(self.seen, remaining=self.left(now))


class _Seen(msgspec.Struct, frozen=True):
    """The last grant of a resource, to which request, and when."""

    granted: Given | Granted
    request: Acquire
    at: float

    @property
    def charged(self) -> dict[str, float]:
        """What it was charged."""
        return self.granted.charged

    @property
    def limits(self) -> Sequence[LimitState] | None:
        """Its limits then; None when they cannot be read, which is not the same as none."""
        try:
            return self.granted.limits
        except ServiceFault:
            return None

    @property
    def size(self) -> float:
        """For how many tokens that was."""
        return _size(self.request)


class Alone:
    """Decides while the service cannot be reached: it is `lost` when it could not be when it was
    last asked.
    """

    def __init__(self, mode: OnServiceLoss, part: float) -> None:
        self._mode, self._part = mode, part
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._latest: dict[_Key, tuple[LimitState, float]] = {}
        self._shares: dict[_Key, _Share] = {}
        self._grants: OrderedDict[str, Grant] = OrderedDict()
        self._flushing = False
        self.lost, self._look_at = False, 0.0
        self._losses = self._granted = self._refused = self._charged = 0

    def figures(self) -> AloneFigures:
        """What was done here."""
        with self._lock:
            return AloneFigures(
                lost=self.lost,
                losses=self._losses,
                granted=self._granted,
                refused=self._refused,
                charged=self._charged,
                uncharged=sum(1 for grant in self._grants.values() if grant.lease is None),
            )

    def heard(self, request: Acquire, granted: Given | Granted, now: float) -> None:
        """Take in what the service has granted."""
        self._seen[request.resource, request.tenant] = _Seen(granted, request, now)
        if len(self._seen) > _MOST_SEEN:
            with self._lock:
                self._forget()

    def _forget(self) -> None:
        """Keep the half that was granted last: to know which is the oldest takes longer than all
        else that a grant is worth here.
        """
        oldest = sorted(self._seen.copy().items(), key=lambda item: item[1].at)
        self._seen = dict(oldest[len(oldest) // 2 :])

    def knows(self, request: Acquire) -> bool:
        """Whether there is something to go by."""
        return self._mode == "open" or (request.resource, request.tenant) in self._seen

    def may_ask(self, now: float) -> bool:
        """Whether the service is to be asked: always, or once in LOOK_EVERY while it is lost."""
        if not self.lost:
            return True
        with self._lock:
            if now < self._look_at:
                return False
            self._look_at = now + LOOK_EVERY
            return True

    def lose(self, now: float) -> bool:
        """The service cannot be reached; whether that is news, and anything can be granted here."""
        with self._lock:
            news, self.lost = not self.lost, True
            self._look_at = now + LOOK_EVERY
            if news:
                self._losses += 1
                self._shares.clear()
                self._latest = _latest(self._seen.copy())
            return news and (self._mode == "open" or bool(self._seen))

    def find(self) -> bool:
        """The service has answered; whether that is news, or there is something to charge."""
        if not self.lost and not self._grants:
            return False
        with self._lock:
            self.lost = False
            due = any(each.lease is None or each.report for each in self._grants.values())
            begins = due and not self._flushing
            self._flushing = self._flushing or begins
            return begins

    def take(self, request: Acquire, now: float) -> Grant | Shortage | None:
        """A lease of this process's own, why there is none now, or None: nothing is known."""
        assert request.request_id is not None
        with self._lock:
            known = self._grants.get(request.request_id)
            if known is not None:
                return known
            seen = self._seen.get((request.resource, request.tenant))
            limits = None if seen is None else seen.limits
            if (limits is None and self._mode == "degrade") or not self._has_room(now):
                return None
            limits = limits or ()
            amounts = [_amount(request, limit, seen) for limit in limits if not limit.shadow]
            shares = [self._share(request, limit, now) for limit in limits if not limit.shadow]
            if self._mode == "degrade":
                if any(amount is None for amount in amounts):
                    return None
                short = _shortage(shares, amounts, now)
                if short is not None:
                    self._refused += 1
                    return short
            return self._grant(request, shares, amounts, now)

    def _has_room(self, now: float) -> bool:
        """Whether another lease can be remembered: those that are charged and over make room."""
        if len(self._grants) >= MOST:
            over = [
                name
                for name, grant in self._grants.items()
                if grant.lease is not None and grant.at + grant.granted.expires_in <= now
            ]
            for name in over:
                del self._grants[name]
        return len(self._grants) < MOST

    def _grant(
        self,
        request: Acquire,
        shares: list[_Share],
        amounts: Sequence[float | None],
        now: float,
    ) -> Grant:
        name = f"{PREFIX}{request.request_id}"
        ttl = request.ttl or _TTL
        charged: dict[str, float] = {}
        for share, amount in zip(shares, amounts, strict=True):
            share.take(amount or 0.0, now, name, now + ttl)
            meter = share.seen.meter
            charged[meter] = max(charged.get(meter, 0), amount or 0.0)
        granted = Granted(
            lease=name,
            expires_in=ttl,
            charged=charged,
            limits=[share.state(now) for share in shares],
            degraded=True,
        )
        assert request.request_id is not None
        grant = self._grants[request.request_id] = Grant(request=request, at=now, granted=granted)
        self._granted += 1
        return grant

    def _share(self, request: Acquire, limit: LimitState, now: float) -> _Share:
        key = _key(request.resource, limit)
        share = self._shares.get(key)
        if share is None:
            seen, at = self._latest.get(key, (limit, now))
            share = self._shares[key] = _Share(seen, self._part, at, now)
        return share

    def settle(self, report: Settle) -> tuple[Settled | None, Settle]:
        """Remember how a lease of this process's own has ended; or, when that is not its own or
        is charged, the report for the service.
        """
        if not report.lease.startswith(PREFIX):
            return None, report
        with self._lock:
            grant = self._grants.get(report.lease.removeprefix(PREFIX))
            if grant is None:
                return Settled(already_settled=True, degraded=True), report
            if grant.lease is not None:
                if report.phase is None:
                    del self._grants[report.lease.removeprefix(PREFIX)]
                return None, msgspec.structs.replace(report, lease=grant.lease)
            if report.phase is not None:
                return Settled(settled=False, degraded=True), report
            already, grant.report = grant.report is not None, grant.report or report
            for share in self._shares.values():
                share.ended(report.lease)
            return Settled(already_settled=already, degraded=True), report

    def renew(self, lease: str, ttl: float | None, now: float) -> tuple[Renewed | None, str]:
        """Let a lease of this process's own live on; or, when it is not or is charged, its id at
        the service.
        """
        if not lease.startswith(PREFIX):
            return None, lease
        with self._lock:
            grant = self._grants.get(lease.removeprefix(PREFIX))
            if grant is None:
                return None, lease
            if grant.lease is not None:
                return None, grant.lease
            life = ttl or _TTL
            granted = msgspec.structs.replace(grant.granted, expires_in=now - grant.at + life)
            grant.granted = granted
            grant.request = msgspec.structs.replace(
                grant.request, ttl=min(86_400.0, granted.expires_in)
            )
            charged = granted.charged
            return Renewed(lease=lease, expires_in=life, charged=charged, degraded=True), lease

    def next(self) -> Grant | None:
        """What the service is to hear next; None, and flushing ends, when that is all."""
        with self._lock:
            for grant in self._grants.values():
                if grant.lease is None or grant.report is not None:
                    return grant
            self._flushing = False
            return None

    def charged(self, grant: Grant, lease: str) -> None:
        """The service has charged it, under this id."""
        with self._lock:
            grant.lease = lease
            self._charged += 1

    def done(self, grant: Grant) -> None:
        """The service knows all of it, or never will."""
        with self._lock:
            assert grant.request.request_id is not None
            self._grants.pop(grant.request.request_id, None)

    def give_up(self) -> None:
        """The service is lost again: the rest is told later."""
        with self._lock:
            self._flushing = False


def _latest(
    seen: dict[tuple[str, str], _Seen],
) -> dict[_Key, tuple[LimitState, float]]:
    """Every limit as it was seen last, whatever resource showed it."""
    found: dict[_Key, tuple[LimitState, float]] = {}
    for (resource, _), each in sorted(seen.items(), key=lambda item: item[1].at):
        for limit in each.limits or ():
            found[_key(resource, limit)] = limit, each.at
    return found


def _key(resource: str, limit: LimitState) -> _Key:
    return resource.partition("/")[0], limit.scope, limit.name


def _size(request: Acquire) -> float:
    if request.tokens is not None:
        return float(request.tokens)
    return float((request.input_tokens or 0) + (request.max_output_tokens or 0))


def _amount(request: Acquire, limit: LimitState, seen: _Seen | None) -> float | None:
    """What *request* takes of *limit*: as much for its size as the last one; None: not known."""
    if limit.meter in {Meter.REQUESTS, Meter.CONCURRENCY}:
        return 1.0
    if limit.meter is Meter.COST_USD and request.cost_usd is not None:
        return request.cost_usd
    last = seen.charged.get(limit.meter) if seen else None
    if last is None or seen is None or seen.size <= 0:
        return None if limit.meter is Meter.COST_USD else _size(request)
    return last * _size(request) / seen.size


def _shortage(
    shares: Sequence[_Share], amounts: Sequence[float | None], now: float
) -> Shortage | None:
    worst: tuple[float, _Share] | None = None
    for share, amount in zip(shares, amounts, strict=True):
        wait = share.wait(amount or 0.0, now)
        if wait == 0:
            continue
        length = float("inf") if wait is None else wait
        if worst is None or length > worst[0]:
            worst = length, share
    if worst is None:
        return None
    wait, share = worst
    states = [each.state(now) for each in shares]
    return Shortage(share.seen.name, None if wait == float("inf") else wait, states)
