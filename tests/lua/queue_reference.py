"""What the queue must do, in plain Python: lists that are sorted when somebody is served.

It shares the rules with the Lua and nothing else: no seats, no lexical sets, no records. Limits
are those of `reference`.
"""

import math
from collections.abc import Sequence

import msgspec
from reference import NEVER, Reference

from limiter_service.engine.policy import Limit, Policy
from limiter_service.store.keys import line_id

LEVELS = {"pool": 1, "model": 2, "tenant": 3, "tenant_model": 3}
Line = tuple[str, str, int]
"""Model, tenant, priority."""


class Waiter(msgspec.Struct):
    """One that stands in the queue, or whose grant has not been fetched."""

    name: str
    line: Line
    place: int
    amounts: Sequence[int]
    step: float
    cost: float
    share: float
    period: float
    began: int
    deadline: int
    seen: int
    holder: float
    config: int
    nonce: int
    patient: bool = False
    granted_until: int | None = None


class Seat(msgspec.Struct):
    """Where the head of a line stands."""

    tag: float
    rank: int
    asleep_until: int | None = None


class QueueReference:
    """The queue of one pool. *policy_of(model, tenant)* is the policy in force."""

    def __init__(self, limits: Reference, grace: int, patience: int) -> None:
        self.limits, self.grace, self.patience = limits, grace, patience
        self.beats: dict[float, int] = {}
        self.grants: dict[str, Waiter] = {}
        self.over: dict[str, tuple[Waiter, int]] = {}
        self._clear()

    def _clear(self) -> None:
        self.waiters: dict[str, Waiter] = {}
        self.seats: dict[Line, Seat] = {}
        self.places = 0
        self.virtual: dict[str, float] = {}
        self.behind: dict[str, float] = {}
        self.pool_virtual = 0.0
        self.closed: dict[tuple[int, str], list[tuple[int, float]]] = {}
        self.credit: dict[tuple[str, int], tuple[float, int]] = {}
        self.beats = {}

    def members(self, line: Line) -> list[Waiter]:
        """A line in its order."""
        return sorted((w for w in self.waiters.values() if w.line == line), key=lambda w: w.place)

    @property
    def exists(self) -> bool:
        """Whether anything of the queue is kept."""
        return bool(self.waiters or self.grants or self.over)

    def forget(self, wall: int) -> None:
        """Who has not heard in time that his time is over need not hear it any more."""
        self.over = {n: (w, until) for n, (w, until) in self.over.items() if wall < until}

    def tidy(self) -> None:
        """An empty queue forgets everything."""
        if not self.exists:
            self._clear()

    # Standing in line

    def stands_behind(self, policy: Policy, new: Waiter, wall: int) -> bool:
        """Whether somebody has to be served before *new*."""
        if not self.exists:
            return False
        model, tenant, _ = new.line
        if self.members(new.line):
            return True
        if not self.waiters:
            return False
        if any(s.asleep_until is not None for li, s in self.seats.items() if li[1] == tenant):
            return True
        virtual, behind = self._opened(model)
        turn = virtual + new.step + behind
        if self._rank(new, wall) == 0:
            turn = -1
        awake = [li for li, s in self.seats.items() if li[0] == model and s.asleep_until is None]
        for limit, amount in zip(policy.limits, new.amounts, strict=True):
            level = LEVELS[limit.scope]
            if amount <= 0 or limit.shadow or level > 2 or (level == 2 and not awake):
                continue
            key = (1, "") if level == 1 else (2, model)
            if any(i == limit.id and tag <= turn for i, tag in self.closed.get(key, [])):
                return True
        return False

    def passes(self, new: Waiter, wall: int) -> None:
        """*new* is granted at once while others wait: that counts as its turn."""
        if self.waiters:
            model = new.line[0]
            self._open(model)
            turn = self.virtual[model] + new.step
            if self._rank(new, wall) == 1:
                self.pool_virtual = max(self.pool_virtual, turn + self.behind[model])
                self.virtual[model] = max(self.virtual[model], turn)
            if new.share > 0:
                self.credit[model, 0] = self._credit(new, wall) - new.cost, wall

    def join(self, policy: Policy, new: Waiter, wall: int) -> None:
        """Put *new* at the end of its line. A head closes what it is short of."""
        self._open(new.line[0])
        self.places += 1
        new.place = self.places
        self.waiters[new.name] = new
        if len(self.members(new.line)) == 1:
            self._seat(new.line, 0.0, wall)
            self._close_short_limits(policy, new, wall)

    def _close_short_limits(self, policy: Policy, new: Waiter, wall: int) -> None:
        model = new.line[0]
        turn = self.seats[new.line].tag + self.behind[model]
        opened = self.limits.open(policy, wall)
        scopes: dict[str, list[tuple[Limit, int, int]]] = {}
        for (key, limit, window, now), amount in zip(opened, new.amounts, strict=True):
            scopes.setdefault(key, []).append((limit, amount, window.wait(amount, now, wall)))
        for found in reversed(scopes.values()):
            level = LEVELS[found[0][0].scope]
            short = [limit.id for limit, _, wait in found if wait != 0 and not limit.shadow]
            if level == 3:
                if short:
                    return
                continue
            closed = self.closed.setdefault((1, "") if level == 1 else (2, model), [])
            shut = any(
                amount > 0 and not limit.shadow and any(i == limit.id for i, _ in closed)
                for limit, amount, _ in found
            )
            closed.extend((i, turn) for i in short)
            if short or shut:
                return

    def leave(self, waiter: Waiter, wall: int, *, served: bool = False, noted: bool = True) -> None:
        """Take a waiter out of its line. What its model is behind is *noted*; not within a pass,
        which has noted it at its beginning, nor when its caller is told that its time is over.
        """
        if noted:
            self._open(waiter.line[0])
        head = self.members(waiter.line)[0] is waiter
        del self.waiters[waiter.name]
        if head:
            seat = self.seats.pop(waiter.line)
            self._seat(waiter.line, seat.tag - (0 if served else waiter.step), wall)

    def _seat(self, line: Line, since: float, wall: int) -> None:
        members = self.members(line)
        if members:
            tag = max(self._opened(line[0])[0], since) + members[0].step
            self.seats[line] = Seat(tag, self._rank(members[0], wall))

    def _open(self, model: str) -> None:
        self.virtual[model], self.behind[model] = self._opened(model)

    def _opened(self, model: str) -> tuple[float, float]:
        """Virtual time of a model, and what it is behind the pool's."""
        virtual = self.virtual.get(model, 0.0)
        behind = self.behind.get(model, self.pool_virtual)
        return virtual, max(behind, self.pool_virtual - virtual - 1)

    def _credit(self, w: Waiter, wall: int) -> float:
        level, time = self.credit.get((w.line[0], 0), (w.share, wall))
        return min(w.share, level + max(0, wall - time) * w.share / w.period)

    def _rank(self, w: Waiter, wall: int) -> int:
        if w.share == 0:
            return 1
        return 0 if self._credit(w, wall) >= min(w.cost, w.share) - 1e-9 else 1

    # Serving

    def serve(
        self, policies: dict[tuple[str, str], Policy], config: int, wall: int, most: int,
        room_again: Sequence[str], replica: float,
    ) -> tuple[list[str], float | None]:  # fmt: skip
        """One pass: the names that were granted in their order, and the time to the next pass."""
        if not self.exists:
            return [], None
        self.beats[replica] = wall
        overdue = [
            li[1] for li, s in self.seats.items()
            if s.asleep_until is not None and s.asleep_until <= wall
        ]  # fmt: skip
        for tenant in [*room_again, *overdue]:
            self._wake(tenant)
        for model in {li[0] for li, s in self.seats.items() if s.asleep_until is None}:
            self._open(model)
        granted: list[str] = []
        due = math.inf
        closed: dict[tuple[str, str], list[tuple[int, float]]] = {}
        skipped: set[Line] = set()
        finished: set[str] = set()
        while True:
            candidates = [
                (s.rank, s.tag + self.behind[li[0]], line_id(*li)[:8], s.tag, line_id(*li)[8:], li)
                for li, s in self.seats.items()
                if s.asleep_until is None and li not in skipped and li[0] not in finished
            ]
            # Within a model the seat decides; between models the first seat of each.
            firsts = {}
            for c in candidates:
                key = (c[0], c[3], c[4])
                if c[2] not in firsts or key < firsts[c[2]][0]:
                    firsts[c[2]] = (key, c)
            if not firsts:
                break
            if len(granted) >= most:
                return granted, None
            rank, turn, _, _, _, line = min(c for _, c in firsts.values())
            head = self.members(line)[0]
            if not self._in_sight(head, wall) or wall >= head.deadline:
                self.leave(head, wall, noted=False)
                if wall - head.seen <= self.grace:
                    self.over[head.name] = head, wall + self.patience
                continue
            if head.config != config:
                skipped.add(line)
                continue
            policy = policies[line[0], line[1]]
            verdict, wait = self._consider(policy, head, turn, closed, wall)
            if verdict == "fits":
                self._grant(policy, head, rank, turn, wall)
                granted.append(head.name)
            elif verdict == "never":
                self.leave(head, wall, noted=False)
            elif verdict == "sleep":
                assert wait is not None
                head.patient = True
                self.seats[line].asleep_until = wait
            elif verdict == "private":
                skipped.add(line)
            else:
                finished.add(line[0])
                if wait is not None:
                    due = min(due, wait)
        self._remember_closed(policies, closed)
        sleeping = [
            s.asleep_until - wall for s in self.seats.values() if s.asleep_until is not None
        ]
        due = min([due, *sleeping])
        return granted, None if due == math.inf else max(0.0, due)

    def _wake(self, tenant: str) -> None:
        for line, seat in self.seats.items():
            if line[1] == tenant and seat.asleep_until is not None:
                self._open(line[0])
                seat.asleep_until = None
                seat.tag = max(seat.tag, self.virtual[line[0]])

    def _in_sight(self, w: Waiter, wall: int) -> bool:
        if wall - w.seen <= self.grace:
            return True
        beat = self.beats.get(w.holder)
        return w.holder != 0 and beat is not None and wall - beat <= self.grace

    def _consider(
        self, policy: Policy, w: Waiter, turn: float,
        closed: dict[tuple[str, str], list[tuple[int, float]]], wall: int,
    ) -> tuple[str, int | None]:  # fmt: skip
        opened = self.limits.open(policy, wall)
        scopes: dict[str, list[tuple[Limit, int, int, int]]] = {}
        for (key, limit, window, now), amount in zip(opened, w.amounts, strict=True):
            wait = window.wait(amount, now, wall)
            scopes.setdefault(key, []).append((limit, amount, wait, LEVELS[limit.scope]))
        due: int | None = None
        private = False
        order = list(scopes.items())
        for k in range(len(order) - 1, -1, -1):
            key, found = order[k]
            level = found[0][3]
            if level < 3 and due is not None:
                break
            short = [(li.id, wait) for li, _, wait, _ in found if wait != 0 and not li.shadow]
            if any(wait == NEVER for _, wait in short):
                return "never", None
            behind = any(
                amount > 0 and not limit.shadow and any(i == limit.id for i, _ in closed.get((key, ""), []))
                for limit, amount, _, _ in found
            )  # fmt: skip
            closed.setdefault((key, ""), []).extend((i, turn) for i, _ in short)
            if level == 3:
                if short:
                    due = max(due or 0, wall + max(wait for _, wait in short))
                private = private or behind
            elif short or behind:
                if w.patient:
                    for later, their in order[k + 1 :]:
                        if their[0][3] == 3:
                            closed.setdefault((later, ""), []).extend(
                                (li.id, turn) for li, *_ in their
                            )
                return "shared", max(wait for _, wait in short) if short else None
        if due is not None:
            return "sleep", due
        return ("private", None) if private else ("fits", None)

    def _grant(self, policy: Policy, w: Waiter, rank: int, turn: float, wall: int) -> None:
        ttl = 4_000_000
        self.limits.grant(policy, f"{w.line[1]}/{w.name}", w.nonce, ttl, list(w.amounts), wall)
        model = w.line[0]
        # The Lua takes the waiter out before it moves virtual time, so its successor starts at
        # the tag of the one served.
        if w.share > 0:
            self.credit[model, 0] = self._credit(w, wall) - w.cost, wall
        self.leave(w, wall, served=True, noted=False)
        if rank == 1:
            self.virtual[model] = max(self.virtual[model], turn - self.behind[model])
            self.pool_virtual = max(self.pool_virtual, turn)
        w.granted_until = wall + self.patience
        self.grants[w.name] = w

    def _remember_closed(
        self, policies: dict[tuple[str, str], Policy],
        closed: dict[tuple[str, str], list[tuple[int, float]]],
    ) -> None:  # fmt: skip
        self.closed = {}
        for (model, _), policy in policies.items():
            for key, limit, _, _ in self.limits.open(policy, 0):
                level = LEVELS[limit.scope]
                if level < 3:
                    into = (1, "") if level == 1 else (2, model)
                    self.closed[into] = list(closed.get((key, ""), []))
