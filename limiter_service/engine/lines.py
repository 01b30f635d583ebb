"""The queue of a pool as an operator sees it: every line, with a forecast."""

import contextlib

from limiter_service.engine import ids
from limiter_service.engine.calls import Calls, store_refusal
from limiter_service.engine.forecast import Forecast, Prediction
from limiter_service.engine.levels import Level, read
from limiter_service.engine.passes import PolicyOf
from limiter_service.engine.policy import Policy, UnknownResource
from limiter_service.engine.refusals import Refusal
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Keys
from limiter_service.store.messages import Line, QueueKeys
from limiter_wire import QueueLine, QueueView

_MICRO = 1_000_000

# Where the parts of a line stand (lua/lib/waiting).
_LINE_COUNT, _LINE_DUE, _LINE_LIMITS, _LINE_SUMS = 4, 5, 6, 7


class Lines:
    """Reads queues."""

    def __init__(
        self,
        commands: Commands,
        calls: Calls,
        forecast: Forecast,
        policy_of: PolicyOf,
        prefix: str,
    ) -> None:
        self._commands, self._calls, self._forecast = commands, calls, forecast
        self._policy_of, self._prefix = policy_of, prefix

    async def depth(self, pool: str) -> tuple[int, float]:
        """How many wait in a pool, and for how many seconds the first of a line has, at most.
        Raises Refusal.
        """
        now, depth, lines = await self._read(pool)
        return depth, max((_age(line, now) for line in lines), default=0.0)

    async def _read(self, pool: str) -> tuple[float, int, list[Line]]:
        keys = QueueKeys.of(Keys(pool, self._prefix))
        try:
            return await self._commands.waiters(keys, ids.new_nonce())
        except StoreError as error:
            raise store_refusal(error, None) from error

    async def view(
        self, pool: str, max_waiters: int, max_wait: float, most: int | None = None
    ) -> QueueView:
        """The lines of a pool's queue, at most *most*, the longest first. Raises Refusal."""
        now, depth, lines = await self._read(pool)
        lines.sort(key=lambda line: -line.record[_LINE_COUNT])
        views = [await self._line(line, now) for line in lines[:most]]
        return QueueView(
            pool=pool,
            depth=depth,
            oldest=max((_age(line, now) for line in lines), default=0.0),
            max_waiters=max_waiters,
            max_wait=max_wait,
            lines=views,
        )

    async def _line(self, line: Line, now: float) -> QueueLine:
        resource, _, tenant = line.names.decode().partition("\0")
        waiters, asleep_until = int(line.record[_LINE_COUNT]), line.record[_LINE_DUE]
        forecast = None
        with contextlib.suppress(UnknownResource, Refusal):
            forecast = await self._forecast_of(resource, tenant, line)
        return QueueLine(
            resource=resource,
            tenant=tenant,
            priority=line.id[-1],
            waiters=waiters,
            oldest=_age(line, now),
            predicted_wait=forecast.p50 if forecast else None,
            predicted_wait_p90=forecast.p90 if forecast else None,
            blocked_by_tenant=asleep_until > 0,
        )

    async def _forecast_of(self, resource: str, tenant: str, line: Line) -> Prediction | None:
        policy = self._policy_of(resource, tenant)
        count = len(policy.limits)
        if int(line.record[_LINE_LIMITS]) != count or count == 0:
            return None
        needs = line.record[_LINE_SUMS : _LINE_SUMS + count]
        share = [need / line.record[_LINE_COUNT] for need in needs]
        levels = await self._levels(policy)
        return self._forecast.predict(policy, line.id[-1], (needs, needs), share, levels, 0.0)

    async def _levels(self, policy: Policy) -> list[Level]:
        tag = ids.new_nonce()
        reply = await self._calls.run(policy, lambda chain: self._commands.snapshot(chain, tag))
        return read(reply.numbers, 2, len(policy.limits))[0]


def _age(line: Line, now: float) -> float:
    """How long the first of a line has waited."""
    return max(0.0, now - line.began) / _MICRO
