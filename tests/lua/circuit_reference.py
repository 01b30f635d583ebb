"""What a circuit and its pool's pin must do, in plain Python: outcomes in lists, no packing.

It shares nothing with the Lua but the rules. Whoever changes something notes the time, as a
store does when it is written to; that is the time from which a clock that steps back goes on.
"""

import math
from typing import NamedTuple

import msgspec

US = 1_000_000
RETRY_MEMORY = 10 * US
BUCKETS = 12


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker's policy, in microseconds."""

    life: int = 86_400 * US
    ratio: float = 0.2
    floor: float = 1e-6
    span: int = 5 * US
    least: int = 6
    failures: float = 0.5
    slow: float = 0.8
    run: int = 5
    workers: int = 2
    open: int = 5 * US
    longest: int = 40 * US
    jitter: float = 0.0
    decay: int = 60 * US
    probes: int = 1
    needed: int = 2
    lease: int = 3 * US
    lost: int = 2
    throttled: float = 2.0
    ramp: int = 10 * US
    burst: int = US // 4
    quota: int = 60 * US
    credential: int = 30 * US
    refused: int = 3
    wide: bool = False

    def numbers(self) -> list[float]:
        """The policy as the scripts read it."""
        values = [getattr(self, name) for name in self.__struct_fields__]
        values.insert(self.__struct_fields__.index("span"), RETRY_MEMORY)
        return [float(value) for value in values]


class Mark(NamedTuple):
    """One thing that was counted: when (the bucket), what, by which worker."""

    slot: int
    what: str
    worker: int


class Clock:
    """The store's time as one state sees it: never backwards."""

    def __init__(self) -> None:
        self.shift, self.written = 0, -1

    def now(self, wall: int) -> tuple[int, bool]:
        """The time inside at *wall*, and whether the clock has stepped back."""
        inside = wall + self.shift
        if inside >= self.written:
            return inside, False
        return self.written, True

    def write(self, wall: int) -> None:
        """Something was changed at *wall*."""
        now, _ = self.now(wall)
        self.shift, self.written = now - wall, now


class Circuit:
    """One circuit."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.clock = rules, Clock()
        self.state, self.generation = "closed", 1
        self.open_until = self.opened = self.closed_at = self.cool = 0
        self.override, self.override_until = "none", 0
        self.silent = 0
        self.passed = self.lost = 0
        self.marks: list[Mark] = []
        self.row: list[tuple[int, int]] = []
        self.latch, self.refusals = "none", 0
        self.voted: int | None = None
        self.probes: dict[int, int] = {}
        self.told: list[tuple[str, ...]] = []
        self.dirty = False

    # Transitions.

    def _enter(self, state: str, why: str) -> None:
        self.told.append(("breaker", self.state, state, why))
        self.state, self.generation = state, self.generation + 1
        self.marks, self.row, self.probes = [], [], {}
        self.passed = self.lost = self.refusals = 0
        self.voted = None
        if state != "half_open":
            self.latch = "none"
        self.dirty = True

    def _latch(self, kind: str, until: int, now: int) -> None:
        self._earn_back(now)
        self.open_until = until
        self._enter("open", kind)
        self.latch = kind

    def _earn_back(self, now: int) -> None:
        if self.state == "closed":
            self.opened = max(0, self.opened - (now - self.closed_at) // self.rules.decay)

    def _open(self, now: int, asked: int, luck: float, why: str) -> None:
        rules = self.rules
        self._earn_back(now)
        self.opened += 1
        base = min(float(rules.longest), rules.open * 2.0 ** (self.opened - 1))
        length = math.floor(base * (1 + rules.jitter * (2 * luck - 1)))
        self.open_until = now + max(length, min(asked, rules.longest))
        self._enter("open", why)

    def hold(self, mode: str, until: int, now: int, why: str) -> None:
        """Hold by hand, or let go (`none`)."""
        self.told.append(("override", self.override, mode, why))
        self.override, self.override_until, self.silent = mode, until, 0
        self.generation += 1
        self.dirty = True
        if self.state == "half_open":
            self.open_until = now
            self._enter("open", "override")

    def lift(self, now: int) -> None:
        """An override ends when its time is over."""
        if self.override != "none" and 0 <= self.override_until <= now:
            self.hold("none", 0, now, "expired")

    def reset(self, why: str) -> None:
        """As new, except for its generation."""
        if self.state == "closed":
            self.told.append(("reset", "", "", why))
            self._enter("closed", why)
            self.told.pop()
        else:
            self._enter("closed", why)
        self.opened = self.closed_at = self.cool = self.silent = 0
        self.override, self.override_until = "none", 0

    # Admission.

    def gate(self, now: int, luck: float) -> tuple[str, int, bool]:
        """Why not (or `pass`), for how long not, and whether as a probe."""
        self.lift(now)
        if self.override == "open":
            until = self.override_until
            return "forced_open", -1 if until < 0 else until - now, False
        if self.override in {"closed", "observe"}:
            return "pass", 0, False
        if self.state == "half_open":
            ended = [token for token, until in self.probes.items() if until <= now]
            for token in ended:
                del self.probes[token]
            if ended:
                self.told.append(("probe_lost", "", "", ""))
                self.lost += len(ended)
                self.dirty = True
                if self.lost >= self.rules.lost:
                    self._open(now, 0, luck, "probes_lost")
        if self.state == "open" and now < self.open_until:
            why = "open" if self.latch == "none" else "latched"
            return why, max(self.open_until, self.cool) - now, False
        if self.cool > now:
            return "cooldown", self.cool - now, False
        if self.state == "half_open":
            held = len(self.probes)
            if held >= self.rules.probes or held + self.passed >= self.rules.needed:
                return "probing", min(US, min(self.probes.values()) - now), False
        return "pass", 0, self.state != "closed"

    def probe(self, now: int, token: int) -> None:
        """A call may probe."""
        if self.state == "open":
            self._enter("half_open", "expired")
        self.probes[token] = now + self.rules.lease
        self.dirty = True

    # Reports.

    def report(self, now: int, r: "Report") -> str:
        """Take in one outcome."""
        self.lift(now)
        rules = self.rules
        if r.what == "throttle" and r.asked and not rules.wide:
            until = now + min(r.asked, rules.longest)
            if until > self.cool:
                if self.cool <= now:
                    self.told.append(("cooldown", "", "", "throttled"))
                self.cool, self.dirty = until, True
        if r.generation != self.generation:
            return "stale"
        what = "neutral" if r.what in {"quota", "refused"} else r.what
        if self.state == "open":
            return "ignored"
        if what == "failure":
            self.dirty = True
        if self.state == "half_open":
            return self._vote(now, r, what)
        self._count(now, r, what)
        return "counted"

    def _vote(self, now: int, r: "Report", what: str) -> str:
        if what == "failure" and r.early and r.token == self.voted:
            self._open(now, r.asked, r.luck, "probe_failed")
            return "voted"
        if self.probes.get(r.token, now) <= now:
            return "nolease"
        del self.probes[r.token]
        self.dirty = True
        if what == "failure" or (what == "success" and r.slow):
            self._open(now, r.asked, r.luck, "probe_failed")
        elif what in {"model_quota", "model_refused"}:
            self._refuse(now, r)
        elif what == "success":
            self.passed, self.lost = self.passed + 1, 0
            self.voted = r.token
            if self.passed >= self.rules.needed:
                self.closed_at = now
                self._enter("closed", "recovered")
        return "voted"

    def _refuse(self, now: int, r: "Report") -> None:
        """The provider says that the model's quota is used up, or refuses its credentials."""
        kind, until = "quota_exhausted", now + max(self.rules.quota, r.asked)
        if r.what == "model_refused":
            self.refusals, self.dirty = self.refusals + 1, True
            kind, until = "credentials_refused", now + self.rules.credential
            if self.refusals < self.rules.refused and self.latch != kind:
                return
        if self.override == "none":
            self._latch(kind, until, now)
        elif self.override == "observe" and now >= self.silent:
            self.silent, self.dirty = now + self.rules.open, True
            self.told.append(("would_open", "", "", kind))

    def _count(self, now: int, r: "Report", what: str) -> None:
        if what == "neutral":
            return
        if what == "success" and r.early:
            self.dirty = self.dirty or bool(self.row)
            self.row = []
            return
        if what in {"model_quota", "model_refused"}:
            self._refuse(now, r)
            return
        self.dirty = True
        slot = now // self.rules.span
        live = [mark for mark in self.marks if slot - BUCKETS < mark.slot <= slot]
        if what == "failure" and r.early:
            successes = [i for i, mark in enumerate(live) if mark.what == "ok"]
            if successes:
                del live[successes[-1]]
        self.marks = live
        self.marks.append(Mark(slot, "seen", r.worker))
        match what:
            case "success":
                self.marks.append(Mark(slot, "ok", r.worker))
                if r.slow:
                    self.marks.append(Mark(slot, "slow", r.worker))
                self.refusals = 0
                if not r.begun:
                    self.row = []
            case "throttle":
                self.marks.append(Mark(slot, "throttled", r.worker))
            case _:
                self.marks.append(Mark(slot, "failed", r.worker))
                self.row.append((now, r.worker))
        why = self._verdict(now)
        if why and self.override == "none":
            self._open(now, r.asked, r.luck, why)
        elif why and self.override == "observe" and now >= self.silent:
            self.silent = now + self.rules.open
            self.told.append(("would_open", "", "", why))

    def tally(self, what: str) -> int:
        """How often something was counted."""
        return sum(mark.what == what for mark in self.marks)

    def workers(self, what: str) -> set[int]:
        """Who reported something."""
        return {mark.worker for mark in self.marks if mark.what == what}

    def _verdict(self, now: int) -> str | None:
        rules = self.rules
        ok, failed = self.tally("ok"), self.tally("failed")
        slow, throttled = self.tally("slow"), self.tally("throttled")
        quorum = min(rules.workers, len(self.workers("seen")))
        in_row = {worker for _, worker in self.row}
        if (
            rules.run
            and len(self.row) >= rules.run
            and len(in_row) >= quorum
            and (now - self.row[0][0] >= rules.burst or len(in_row) >= max(2, rules.workers))
        ):
            return "consecutive"
        calls = ok + failed
        failing = self.workers("failed")
        if (
            calls >= rules.least
            and failed
            and failed / calls >= rules.failures
            and len(failing) >= quorum
        ):
            return "failure_rate"
        if calls >= rules.least and slow and slow >= rules.slow * calls:
            return "slow_rate"
        everything = calls + throttled
        if everything >= rules.least and throttled and throttled >= rules.throttled * everything:
            return "throttle_rate"
        return None

    def ramp(self, now: int) -> float:
        """The share of its rate at which a bucket refills."""
        since = now - self.closed_at
        if self.state != "closed" or not self.closed_at or since >= self.rules.ramp:
            return 1.0
        return 0.1 + 0.9 * since / self.rules.ramp


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How one call ended."""

    what: str
    generation: int
    token: int
    worker: int = 0
    slow: bool = False
    asked: int = 0
    early: bool = False
    begun: bool = False
    luck: float = 0.5


class Pin:
    """What a pool shares: latches, a cooldown, the retry budget."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.clock = rules, Clock()
        self.latch, self.until, self.cool = "none", 0, 0
        self.trial: tuple[int, int] | None = None
        self.refused = 0
        self.voted: int | None = None
        self.flows: list[tuple[int, float]] = []
        self.told: list[tuple[str, ...]] = []
        self.dirty = False

    def gate(self, now: int) -> tuple[str, int, bool]:
        """As Circuit.gate; the third is whether as the trial."""
        if self.latch != "none":
            if now < self.until:
                return "latched", self.until - now, False
            if self.trial and now < self.trial[1]:
                return "latched", min(US, self.trial[1] - now), False
        if now < self.cool:
            return "cooldown", self.cool - now, False
        return "pass", 0, self.latch != "none"

    def balance(self, now: int) -> float:
        """The retry budget: what came and went, each the less the longer ago it was."""
        floor = self.rules.floor * RETRY_MEMORY
        return floor + sum(
            amount * math.exp((then - now) / RETRY_MEMORY) for then, amount in self.flows
        )

    def retry(self, now: int) -> bool:
        """Whether one more retry is allowed."""
        return self.rules.ratio < 0 or self.balance(now) >= 1

    def attempt(self, now: int, nth: int, token: int) -> None:
        """A call was let through. Where there is plenty, one of sixteen first attempts earns for
        all of them.
        """
        if self.rules.ratio < 0:
            return
        more = self.rules.ratio
        if nth > 1:
            more = -1.0
        elif self.balance(now) - self.rules.floor * RETRY_MEMORY >= 16:
            more *= 0 if token % 16 else 16
        if more:
            self.flows.append((now, more))
            self.dirty = True

    def take_trial(self, now: int, token: int) -> None:
        """One call may try whether the latch still holds."""
        self.trial, self.dirty = (token, now + self.rules.lease), True

    def report(self, now: int, r: Report) -> None:
        """Take in one outcome."""
        trial = self.latch != "none" and self.trial is not None and self.trial[0] == r.token
        if trial:
            self.trial, self.dirty = None, True
        match r.what:
            case "success" if trial:
                self.release("recovered")
            case "success" if self.refused:
                self.refused, self.dirty = 0, True
            case "quota":
                self._latch("quota_exhausted", now + max(self.rules.quota, r.asked))
            case "refused":
                self.refused, self.dirty = self.refused + 1, True
                if trial or self.refused >= self.rules.refused:
                    self._latch("credentials_refused", now + self.rules.credential)
            case "throttle" if r.asked and self.rules.wide:
                until = now + min(r.asked, self.rules.longest)
                if until > self.cool:
                    if self.cool <= now:
                        self.told.append(("cooldown", "", "", "throttled"))
                    self.cool, self.dirty = until, True
            case _:
                pass

    def _latch(self, kind: str, until: int) -> None:
        if kind != self.latch:
            self.told.append(("latch", self.latch, kind, ""))
        self.latch, self.until, self.dirty = kind, max(until, self.until), True

    def release(self, why: str) -> None:
        """No latch any more."""
        if self.latch != "none":
            self.told.append(("latch", self.latch, "none", why))
        self.latch, self.until, self.trial, self.refused = "none", 0, None, 0
        self.dirty = True
