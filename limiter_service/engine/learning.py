"""Limits that change while the file stays: stated by providers, held by operators."""

from collections.abc import Callable, Iterable

import msgspec

from limiter_service.engine import breaking, ids, readings
from limiter_service.engine.books import Books
from limiter_service.engine.breaking import Class, Note
from limiter_service.engine.calls import Calls, store_refusal
from limiter_service.engine.levels import (
    Level,
    Record,
    capacity_of,
    read,
    records,
    states,
    whole,
)
from limiter_service.engine.passes import Passes
from limiter_service.engine.policy import Limit, Policy
from limiter_service.engine.refusals import refuse
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreError
from limiter_service.store.messages import LimitOrder
from limiter_wire import (
    ErrorCode,
    LimitHeld,
    LimitOverride,
    LimitState,
    LimitView,
    Noticed,
    Observe,
    Outcome,
    ResourceView,
    Settle,
)
from limiter_wire.providers import classify

_MICRO = 1_000_000
_WHOLE_AGAIN = 600.0 * _MICRO  # a burst that shrank to nothing (lua/lib/learned)
_PARTS, _REGAINED = 64, 10 * _MICRO  # a rate that was cut, and the time for a part of it
_REFUSALS = 400

_note_encoder = msgspec.msgpack.Encoder()
_note_decoder = msgspec.msgpack.Decoder(Note)


def told_by(policy: Policy, report: Settle, now: float) -> tuple[bytes, float]:
    """What the headers of a settle say: readings, and the pause that is asked for, in seconds.
    *now* is in Unix seconds, and only reads the dates of headers.
    """
    pause = report.retry_after
    refused = report.outcome is Outcome.RATE_LIMITED
    if report.headers is None and report.spent is None and not refused:
        return b"", pause or 0.0
    if pause is None and report.outcome is not Outcome.SUCCESS:
        pause = readings.asked_pause(report.headers, now)
    found = readings.readings(policy, report.headers or {}, report.spent, now)
    return readings.packed(policy, found, refused=refused), pause or 0.0


class Learning:
    """The use cases. Every method raises Refusal when it has no answer."""

    def __init__(
        self,
        commands: Commands,
        calls: Calls,
        passes: Passes,
        policy_of: Callable[[str, str], Policy],
        books: Books,
    ) -> None:
        self._commands, self._calls, self._books = commands, calls, books
        self._passes, self._policy_of = passes, policy_of

    async def observe(self, report: Observe) -> Noticed:
        """Take in what a provider said to a call without a lease."""
        policy = self._policy_of(report.resource, "default")
        outcome = Outcome.SUCCESS
        if report.status >= _REFUSALS:
            provider = policy.config.provider
            outcome = classify(provider, status=report.status, headers=report.headers).outcome
        refused = outcome is Outcome.RATE_LIMITED
        now = self._calls.now_us() / _MICRO
        found = readings.readings(policy, report.headers, report.spent, now)
        packed = readings.packed(policy, found, refused=refused)
        pause = (readings.asked_pause(report.headers, now) or 0.0) if refused else 0.0
        kind, tag = breaking.CLASSES[outcome] if refused else Class.NEUTRAL, ids.new_nonce()
        reply = await self._calls.run(
            policy,
            lambda chain: self._commands.observe(chain, tag, kind, int(pause * _MICRO), packed),
        )
        levels, _ = read(reply.numbers, 1, len(policy.limits))
        return Noticed(
            resource=policy.resource,
            taken=len(found),
            changed=int(reply.numbers[0]),
            limits=states(policy, levels, frozenset()),
        )

    async def hold(
        self, resource: str, name: str, tenant: str, order: LimitOverride, actor: str
    ) -> LimitView:
        """Hold a limit to another value."""
        policy = self._policy_of(resource, tenant)
        nth, limit = _named(policy, name)
        capacity, rate = readings.bounds(limit, order.limit)
        reason = order.reason or "override"
        told = LimitOrder(
            nth=nth,
            limit=order.limit,
            capacity=capacity,
            rate=rate,
            life=-1.0 if order.ttl is None else max(1.0, order.ttl * _MICRO),
            names=readings.names(policy, [limit.name, actor, reason]),
            notice=_note_encoder.encode(Note(actor, order.reason)),
        )
        return await self._order(policy, nth, told)

    async def release(
        self, resource: str, name: str, tenant: str, actor: str, reason: str = ""
    ) -> LimitView:
        """Let go of a limit."""
        policy = self._policy_of(resource, tenant)
        nth, limit = _named(policy, name)
        names = readings.names(policy, [limit.name, actor, reason or "cleared"])
        return await self._order(policy, nth, LimitOrder(nth=nth, names=names))

    async def _order(self, policy: Policy, nth: int, order: LimitOrder) -> LimitView:
        notice, tag = policy.notices[nth - 1], ids.new_nonce()
        await self._calls.run(
            policy, lambda chain: self._commands.hold_limit(chain, notice, tag, order)
        )
        self._passes.room_again(policy)  # waiters may fit now
        return (await self.view(policy.resource, policy.tenant)).limits[nth - 1]

    async def view(self, resource: str, tenant: str) -> ResourceView:
        """The live state of every limit that *resource* meets for *tenant*."""
        policy = self._policy_of(resource, tenant)
        tag = ids.new_nonce()
        reply = await self._calls.run(policy, lambda chain: self._commands.snapshot(chain, tag))
        wall, circuit = reply.numbers[:2]
        levels, end = read(reply.numbers, 2, len(policy.limits))
        known = records(reply.numbers, end, levels, policy.scopes)
        held = {i: r for i, r in known.items() if r.held > 0}
        notes = await self._notes(policy, held) if held else {}
        parts = zip(states(policy, levels, frozenset()), policy.limits, levels, strict=True)
        slots = [
            int(level.cell[0])
            for level, limit in zip(levels, policy.limits, strict=True)
            if limit.window == "concurrency"
        ]
        return ResourceView(
            resource=policy.resource,
            tenant=tenant,
            limits=[
                _view(state, limit, level, known.get(level.limit_id), notes, wall)
                for state, limit, level in parts
            ],
            in_flight=max(slots) if slots else None,
            breaker=breaking.state_of(circuit),
            budgets=self._books.budgets(policy, levels),
        )

    async def _notes(self, policy: Policy, held: Iterable[float]) -> dict[float, Note]:
        names = {limit_id: policy.notices[policy.place(limit_id)] for limit_id in held}
        try:
            texts = await self._commands.notices([*names.values()], ids.new_nonce())
        except StoreError as error:
            raise store_refusal(error, policy.resource) from error
        return {i: _note_decoder.decode(text) for i, text in zip(names, texts, strict=True) if text}


def _named(policy: Policy, name: str) -> tuple[int, Limit]:
    """The limit that an operator means: by its name in answers, or in the file (the model's
    before the pool's before the tenant's). Raises Refusal.
    """
    order = ("model", "pool", "tenant", "tenant_model")
    fitting = [
        (limit.name != name, order.index(limit.scope), nth, limit)
        for nth, limit in enumerate(policy.limits, start=1)
        if name in {limit.name, limit.config.name}
    ]
    if not fitting:
        known = ", ".join(limit.name for limit in policy.limits) or "none"
        message = f"no limit {name!r}; {policy.resource} has: {known}"
        raise refuse(ErrorCode.UNKNOWN_RESOURCE, message, resource=policy.resource)
    _, _, nth, limit = min(fitting, key=lambda each: each[:3])
    return nth, limit


def _view(
    state: LimitState,
    limit: Limit,
    level: Level,
    known: Record | None,
    notes: dict[float, Note],
    wall: float,
) -> LimitView:
    fields = msgspec.structs.asdict(state) | {
        "configured": whole(limit.limit),
        "capacity": whole(capacity_of(limit, level) / limit.unit),
        "learn": limit.learn,
    }
    if known is not None:
        if known.stated > 0 and wall < known.stated_until:
            until = known.stated_until / _MICRO
            fields |= {"learned": whole(known.stated), "learned_until": until}
        if known.held > 0 and (known.held_until < 0 or wall < known.held_until):
            fields["override"] = _held(known, notes.get(float(limit.id)))
        since = max(0.0, wall - known.burst_at)
        fields["burst"] = min(1.0, known.burst + since / _WHOLE_AGAIN)
        parts = max(0.0, wall - known.cut_at) // _REGAINED
        fields["share"] = min(1.0, known.share + parts / _PARTS)
        fields["corrected"] = known.corrected / _MICRO or None
    return LimitView(**fields)


def _held(known: Record, note: Note | None) -> LimitHeld:
    return LimitHeld(
        limit=whole(known.held),
        until=None if known.held_until < 0 else known.held_until / _MICRO,
        actor=note.actor if note else "",
        reason=note.reason if note else "",
    )
