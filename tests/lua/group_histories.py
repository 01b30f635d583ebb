"""Histories in which those who ask one after another are decided in groups, against the same
reference as alone (reference.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
from histories import Run, Step, _amounts_of
from tests_support.scripts import Answer, Bench, scripts

from limiter_service.engine.policy import Policy
from limiter_service.store.messages import Verdict

_MOST = 6
_TTL, _REMEMBER = 4_000_000, 3_600_000_000


class GroupBench(Bench):
    """Tells what a group was answered when its requests are asked for one by one."""

    def __init__(self, client: redis.Redis, loaded: dict[str, Any]) -> None:
        super().__init__(client, loaded)
        self.told: dict[tuple[str, str, int], Answer] = {}

    def acquire(self, policy: Policy, request_id: str, **rest: Any) -> Answer:
        """As the group was told; else alone."""
        known = self.told.pop((policy.tenant, request_id, rest["nonce"]), None)
        return super().acquire(policy, request_id, **rest) if known is None else known


class GroupRun(Run):
    """One history: acquires are put off until something else happens, or somebody else asks."""

    bench: GroupBench

    def __init__(self, client: redis.Redis, loaded: Mapping[str, Any], first: int) -> None:
        super().__init__(client, loaded, first)
        self.bench = GroupBench(client, dict(loaded))
        self.pending: list[Step] = []
        self.grouped, self.crowd = 0, False

    def step(self, step: Step) -> None:
        """Put it off, or do it, after all that was."""
        first = self.pending[0] if self.pending else step
        apart = step.kind != "acquire" or step.who % 4 != first.who % 4
        if apart or len(self.pending) == _MOST:
            self.flush()
        if step.kind == "acquire":
            self.pending.append(step)
        else:
            super().step(step)

    def flush(self) -> None:
        """Ask for all at the same moment, and compare each with the reference in turn."""
        if not self.pending:
            return
        steps, self.pending = self.pending, []
        self.bench.now += max(0, steps[0].time) // 16
        policy, asked = self.policy(steps[0].who), []
        for nonce, step in enumerate(steps, self.nonce):
            name = f"r{step.who}" if step.amount % 5 == 0 else f"n{nonce}"
            amounts = _amounts_of(policy, step.amount)
            head = [nonce + 1, step.amount + 1, _TTL, _REMEMBER, 0, 0, 1, 0, len(amounts)]
            asked.append((name, [*head, *amounts]))
        answers = self.bench.acquire_group(policy, asked)
        self.grouped += sum(answer is not None for answer in answers)
        self.bench.told = {
            (policy.tenant, name, int(numbers[0])): answer
            for (name, numbers), answer in zip(asked, answers, strict=True)
            if answer is not None
        }
        self.crowd = len(self.bench.told) > 1
        for step in steps:
            self.acquire(Step(step.kind, step.who, step.amount, 0))
        assert not self.bench.told, "every answer was asked for"
        last, crowd, self.crowd = answers[-1], self.crowd, False
        if crowd and last and last.verdict in {Verdict.DONE, Verdict.DENIED}:
            start = 9 + len(policy.limits) if last.verdict is Verdict.DONE else 2
            self._assert_levels(policy, last.numbers, start)

    def _assert_honest(self, policy: Policy, amounts: list[int], wait: int) -> None:
        """Of a group others are granted after somebody is told when there is room."""
        if not self.crowd:
            super()._assert_honest(policy, amounts, wait)

    def _assert_levels(self, policy: Policy, numbers: Sequence[float], start: int) -> None:
        """Those of a group are told what the levels are after all of it."""
        if not self.crowd:
            super()._assert_levels(policy, numbers, start)

    def finish(self) -> None:
        """As there, after all that was put off."""
        self.flush()
        super().finish()


def run(
    client: redis.Redis, faults: Mapping[str, str] | None = None
) -> Callable[[tuple[int, list[Step]]], int]:
    """A function that runs one history on an emptied server, and says how many were decided in
    groups; AssertionError is a difference.
    """
    loaded = scripts(faults)

    def one(history: tuple[int, list[Step]]) -> int:
        client.flushall()
        first, what = history
        under_way = GroupRun(client, loaded, first)
        for step in what:
            under_way.step(step)
        under_way.finish()
        return under_way.grouped

    return one
