"""The figures of the demo, side by side."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from rich import box
from rich.table import Table

from limiter_service.demo.messages import Ending, Finished
from limiter_service.demo.plan import Plan
from limiter_service.provider_sim import SimStats, Window

_MINUTE = 60


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why calls failed, and how many."""

    text: str
    count: int


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the workload. Times are seconds of the workload.

    `refused` counts the provider's 429s. `tokens_share` is what it granted of the most that
    its limits allowed: until the last grant, or in all fixed minutes but the last.
    """

    calls: int
    succeeded: int
    given_up: int
    failed: int
    attempts: int
    refused: int
    refused_share: float
    tokens_granted: int
    tokens_share: float
    wait_p50: float
    wait_p95: float
    wait_max: float
    makespan: float
    problems: list[Problem]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Both runs, and what they had in common."""

    workload: str
    minutes: float
    speed: float
    workers: int
    seed: int
    window: Window
    rpm: int
    tpm: int
    offered_rpm: float
    offered_tpm: float
    without: Side
    with_sluicegate: Side


def side_of(plan: Plan, finished: Sequence[Finished], stats: SimStats) -> Side:
    """The figures of a run from what its workers and its provider saw."""
    waits = sorted(call.waited for call in finished if call.ending is Ending.SUCCEEDED)
    endings = [call.ending for call in finished]
    attempts = sum(call.attempts for call in finished)
    refused = sum(call.refusals for call in finished)
    return Side(
        calls=len(finished),
        succeeded=endings.count(Ending.SUCCEEDED),
        given_up=endings.count(Ending.GIVEN_UP),
        failed=endings.count(Ending.FAILED),
        attempts=attempts,
        refused=refused,
        refused_share=refused / attempts if attempts else 0.0,
        tokens_granted=stats.tokens_granted,
        tokens_share=_tokens_share(plan, stats),
        wait_p50=_percentile(waits, 0.5),
        wait_p95=_percentile(waits, 0.95),
        wait_max=_percentile(waits, 1.0),
        makespan=max((call.at for call in finished), default=0.0),
        problems=_problems(finished),
    )


def _tokens_share(plan: Plan, stats: SimStats) -> float:
    # The last fixed minute ends with the run and not with its window: what is left of it
    # was not lost, and says nothing.
    whole = [minute.tokens_granted for minute in stats.by_minute[:-1]]
    if plan.window is Window.BUCKET or not whole:
        return stats.tokens_granted / stats.tokens_allowed
    return sum(whole) / (plan.tpm * stats.by_minute[-1].at / _MINUTE)


def _problems(finished: Sequence[Finished]) -> list[Problem]:
    """The commonest reasons for failure."""
    counted = Counter(call.problem for call in finished if call.problem)
    return [Problem(text=text, count=count) for text, count in counted.most_common(3)]


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def report_of(plan: Plan, without: Side, with_sluicegate: Side) -> Report:
    """The report on both runs of `plan`."""
    return Report(
        workload=plan.source,
        minutes=plan.minutes,
        speed=plan.speed,
        workers=plan.workers,
        seed=plan.seed,
        window=plan.window,
        rpm=plan.rpm,
        tpm=plan.tpm,
        offered_rpm=plan.offered.requests,
        offered_tpm=plan.offered.tokens,
        without=without,
        with_sluicegate=with_sluicegate,
    )


# What the table shows of a side, in order.
_ROWS: tuple[tuple[str, Callable[[Side], str]], ...] = (
    ("calls", lambda side: f"{side.calls:,}"),
    ("  succeeded", lambda side: f"{side.succeeded:,}"),
    ("  given up", lambda side: f"{side.given_up:,}"),
    ("  failed otherwise", lambda side: f"{side.failed:,}"),
    ("requests to the provider", lambda side: f"{side.attempts:,}"),
    ("  refused with 429", lambda side: f"{side.refused:,}"),
    ("  429 rate", lambda side: f"{side.refused_share:.2%}"),
    ("tokens granted by the provider", lambda side: f"{side.tokens_granted:,}"),
    ("  of what its limits allowed", lambda side: f"{side.tokens_share:.1%}"),
    ("wait, median", lambda side: _time(side.wait_p50)),
    ("wait, 95th percentile", lambda side: _time(side.wait_p95)),
    ("wait, longest", lambda side: _time(side.wait_max)),
    ("until the last answer", lambda side: _time(side.makespan)),
)


def table(report: Report) -> Table:
    """Both runs as columns."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("")
    shown.add_column("without", justify="right")
    shown.add_column("with Sluicegate", justify="right")
    for name, text in _ROWS:
        shown.add_row(name, text(report.without), text(report.with_sluicegate))
    return shown


def legend(report: Report) -> str:
    """How to read the table."""
    return (
        "Times are those of the workload, which was replayed"
        f" {report.speed:g} times faster. Waits run from the moment a call was due until the"
        " attempt that succeeded. Calls on their own give up after two retries."
    )


def _time(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes} min {rest:02d} s"
