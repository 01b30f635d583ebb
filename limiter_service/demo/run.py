"""The demo: the same workload twice, without and with Sluicegate, and the figures of both."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import httpx
import msgspec
from rich.console import Console

from limiter_service.demo.messages import Finished, Job, Message, Ready, Start
from limiter_service.demo.plan import MAX_OUTPUT, PATIENCE, RESOURCE, Plan
from limiter_service.demo.processes import Process, provider, python, service
from limiter_service.demo.progress import Shown, Tally, shown
from limiter_service.demo.report import Report, Side, report_of, side_of
from limiter_service.provider_sim import SimStats

# Between the last worker's readiness and the first call, in real seconds.
_LEAD = 0.2

_encode = msgspec.json.Encoder().encode
_message: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_stats = msgspec.json.Decoder(SimStats)


async def run_demo(plan: Plan, console: Console) -> Report:
    """Run both halves of `plan`, shown on `console`. Raises ProcessError."""
    console.print(_introduction(plan), soft_wrap=True)
    async with provider(plan) as sim, httpx.AsyncClient(base_url=sim, trust_env=False) as http:
        with shown(console, "without Sluicegate", len(plan.calls)) as display:
            without = await _side(plan, http, None, display)
        async with service(plan) as limiter:
            console.print(f"Watch it:  {limiter}/ while it runs")
            with shown(console, "with Sluicegate   ", len(plan.calls)) as display:
                with_sluicegate = await _side(plan, http, limiter, display)
    return report_of(plan, without, with_sluicegate)


def _introduction(plan: Plan) -> str:
    load = plan.offered
    return (
        f"Workload: {len(plan.calls):,} calls of {plan.source} in {plan.minutes:g} min,"
        f" {load.requests:,.0f} requests and {load.tokens:,.0f} tokens per minute\n"
        f"Provider: {plan.rpm:,} requests and {plan.tpm:,} tokens per minute"
        f" ({plan.window} windows)\n"
        f"Callers:  {plan.workers} processes; time runs {plan.speed:g} times faster than it did"
    )


async def _side(plan: Plan, http: httpx.AsyncClient, limiter: str | None, display: Shown) -> Side:
    """One run of the workload, from a provider that has forgotten the last."""
    async with contextlib.AsyncExitStack() as stack:
        names = [f"worker {number}" for number in range(plan.workers)]
        workers = [
            await stack.enter_async_context(python(name, "-m", "limiter_service.demo.worker"))
            for name in names
        ]
        for number, (worker, calls) in enumerate(zip(workers, plan.shares(), strict=True)):
            job = Job(
                worker=number,
                calls=calls,
                provider=str(http.base_url),
                limiter=limiter,
                resource=RESOURCE,
                max_output=MAX_OUTPUT,
                patience=PATIENCE,
                speed=plan.speed,
                seed=plan.seed,
            )
            await _tell(worker, job)
        for worker in workers:
            assert isinstance(await _next(worker), Ready)
        (await http.post("/sim/reset")).raise_for_status()
        start = Start(at=time.monotonic() + _LEAD)
        for worker in workers:
            await _tell(worker, start)
        finished = await _collect(workers, plan.shares(), display)
        for worker in workers:
            await worker.ended()
        stats = _stats.decode((await http.get("/sim/stats")).content)
    return side_of(plan, finished, stats)


async def _collect(
    workers: Sequence[Process], shares: Sequence[Sequence[object]], display: Shown
) -> list[Finished]:
    """Every call of every worker, as it ends."""
    finished: list[Finished] = []
    tally = Tally(calls=sum(len(share) for share in shares))

    async def read(worker: Process, calls: int) -> None:
        for _ in range(calls):
            message = await _next(worker)
            assert isinstance(message, Finished)
            finished.append(message)
            tally.count(message)
            display.update(tally)

    try:
        async with asyncio.TaskGroup() as tasks:
            for worker, share in zip(workers, shares, strict=True):
                tasks.create_task(read(worker, len(share)))
    except ExceptionGroup as group:
        # One dead worker is the end of the demo: the first says why.
        raise group.exceptions[0] from group
    return finished


async def _tell(worker: Process, value: msgspec.Struct) -> None:
    worker.input.write(_encode(value) + b"\n")
    await worker.input.drain()


async def _next(worker: Process) -> Message:
    line = await worker.output.readline()
    if not line:
        raise await worker.failure()
    message: Message = _message.decode(line)
    return message
