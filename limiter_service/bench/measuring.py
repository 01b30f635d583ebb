"""Pairs of acquire and settle in closed loops, and how long each took."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from limiter_service.bench.connection import Connection

_WARM_UP = 0.5
_OK = 200


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: *connections* loops for *seconds*, each acquiring *tokens*."""

    url: str
    key: str | None
    resource: str
    tokens: int
    seconds: float
    connections: int
    timeout: float


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of latencies; seconds."""

    p50: float
    p95: float
    p99: float
    max: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `refused` counts refusals by their code."""

    seconds: float
    connections: int
    granted: int
    refused: dict[str, int]
    pairs_per_second: float
    acquire: Times
    settle: Times


class _Loops:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._since = time.perf_counter() + _WARM_UP
        self._until = self._since + plan.seconds
        self.acquires: list[float] = []
        self.settles: list[float] = []
        self.granted = 0
        self.refused: Counter[str] = Counter()

    async def loop(self, connection: Connection) -> None:
        asked = {"resource": self._plan.resource, "tokens": self._plan.tokens}
        while (began := time.perf_counter()) < self._until:
            status, answer = await connection.post("/v1/acquire", asked)
            middle = time.perf_counter()
            if status == _OK:  # nothing was used, so what can come back does
                told = {"lease": answer["lease"], "usage": {}}
                await connection.post("/v1/settle", told)
            if began < self._since:
                continue
            self.acquires.append(middle - began)
            if status == _OK:
                self.granted += 1
                self.settles.append(time.perf_counter() - middle)
            else:
                self.refused[str(answer.get("code", status))] += 1


async def measure(plan: Plan) -> Measured:
    """Run *plan*. Raises Broken."""
    async with contextlib.AsyncExitStack() as stack:
        opening = (Connection(plan.url, plan.key, plan.timeout) for _ in range(plan.connections))
        connections = [await stack.enter_async_context(each) for each in opening]
        loops = _Loops(plan)
        try:
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(loops.loop(connection))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
    return Measured(
        seconds=plan.seconds,
        connections=plan.connections,
        granted=loops.granted,
        refused=dict(loops.refused),
        pairs_per_second=loops.granted / plan.seconds,
        acquire=times(loops.acquires),
        settle=times(loops.settles),
    )


def times(found: Sequence[float]) -> Times:
    """Their quantiles; zeros where there are none."""
    ordered = sorted(found) or [0.0]

    def at(q: float) -> float:
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]

    return Times(p50=at(0.5), p95=at(0.95), p99=at(0.99), max=ordered[-1])
