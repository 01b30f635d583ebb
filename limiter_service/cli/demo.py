"""`sluicegate demo`: one workload against a simulated provider, without and with Sluicegate."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from limiter_service.cli.ending import fail
from limiter_service.demo.plan import Plan, PlanError, Wishes, make_plan
from limiter_service.demo.processes import ProcessError
from limiter_service.demo.report import Report, legend, table
from limiter_service.demo.run import run_demo
from limiter_service.demo.workload import TraceError
from limiter_service.provider_sim import Window

_INTERRUPTED = 130


def demo(  # one parameter per option
    *,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Replay these calls: an Azure inference trace (CSV) or a Mooncake trace"
            " (JSON lines). Default: calls drawn like those of a chat service."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=1440, help="Minutes of the workload. Default: half a minute, sped up."
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=60,
            help="How many times faster than recorded. Default: 20, or 5 for --window second.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Caller processes.")] = 4,
    rpm: Annotated[
        int | None,
        typer.Option(
            min=1, help="The provider's requests per minute. Default: about as many as called."
        ),
    ] = None,
    tpm: Annotated[
        int | None,
        typer.Option(
            min=1, help="The provider's tokens per minute. Default: fewer than asked for."
        ),
    ] = None,
    window: Annotated[
        Window, typer.Option(help="How the provider enforces its limits; see provider-sim.")
    ] = Window.BUCKET,
    seed: Annotated[int, typer.Option(help="Draws workload, answers and jitter.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON; progress goes to stderr.")
    ] = False,
) -> None:
    """Show what a shared budget changes, in about a minute and without keys.

    Worker processes replay one workload twice against a simulated provider
    that allows less than they ask for: first on their own, retrying as the
    official SDKs do, then with Sluicegate in front.

    Exit codes: 0 both runs are complete, 1 the run with Sluicegate failed,
    2 wrong options or a trace that cannot be read, 130 interrupted.
    """
    wishes = Wishes(
        trace=trace,
        minutes=minutes,
        speed=speed,
        workers=workers,
        rpm=rpm,
        tpm=tpm,
        window=window,
        seed=seed,
    )
    try:
        plan = make_plan(wishes)
    except (TraceError, PlanError) as error:
        fail(str(error), 2)
    report = _run(plan, Console(stderr=as_json))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        out = Console()
        out.print(table(report))
        out.print(legend(report), soft_wrap=True)
    ours = report.with_sluicegate
    if ours.failed or not ours.succeeded:
        reasons = "; ".join(f"{problem.count}x {problem.text}" for problem in ours.problems)
        fail(f"the run with Sluicegate failed: {reasons or 'no call succeeded'}", 1)


def _run(plan: Plan, console: Console) -> Report:
    try:
        return asyncio.run(_until_terminated(plan, console))
    except ProcessError as error:
        fail(str(error), 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        fail("interrupted; everything that the demo started is stopped", _INTERRUPTED)


async def _until_terminated(plan: Plan, console: Console) -> Report:
    """Run the demo; SIGTERM and a closed terminal end it in order, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run_demo(plan, console)
