"""`sluicegate simulate`: what a pools file would do to recorded calls."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from limiter_service.cli.asking import Output, table
from limiter_service.cli.ending import REFUSED, WRONG_WORDS, fail
from limiter_service.cli.words import amount, lasting
from limiter_service.config import Config, ConfigError, load, seconds
from limiter_service.demo.workload import TraceError
from limiter_service.embedded import EmbeddedError, EmbeddedValkey
from limiter_service.engine.policy import Policies, UnknownResource
from limiter_service.simulation.figures import Figures, figures
from limiter_service.simulation.replay import PREFIX, Provider, Scene, replay
from limiter_service.simulation.trace import Call, read

_INTERRUPTED = 130


def simulate(  # one parameter per option
    policy: Annotated[Path, typer.Argument(help="Pools file: .yaml, .yml, .toml or .json.")],
    *,
    trace: Annotated[
        Path,
        typer.Option(
            help="The calls: an Azure inference trace (CSV), a Mooncake trace (JSON lines), or a"
            " CSV or JSON lines with at, input_tokens, output_tokens and, where wanted,"
            " max_output_tokens, resource, tenant, priority."
        ),
    ],
    against: Annotated[
        Path | None, typer.Option(help="Another pools file, shown beside the first.")
    ] = None,
    resource: Annotated[
        str | None,
        typer.Option(help="pool/model of calls that name none. Default: the only one there is."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Only the first minutes of the trace.")
    ] = None,
    max_wait: Annotated[
        str, typer.Option(help='How long callers wait: seconds, "90s", "5m"; 0: not at all.')
    ] = "60s",
    max_output: Annotated[
        int, typer.Option(min=0, help="What calls reserve for answers, where they do not say.")
    ] = 1024,
    latency: Annotated[
        float, typer.Option(min=0, help="The provider's seconds to the first token.")
    ] = 0.5,
    tokens_per_second: Annotated[
        float, typer.Option(min=0.1, help="The provider's pace of an answer.")
    ] = 80.0,
    seed: Annotated[int, typer.Option(help="Spreads times that were recorded coarsely.")] = 0,
    output: Annotated[Output, typer.Option(help="For people, or every figure.")] = Output.TABLE,
) -> None:
    """Replay recorded calls under a pools file, and show what it would have done to them.

    The engine and the scripts are the real ones, over an embedded Valkey of the command's own;
    time jumps from event to event, so an hour takes seconds, and a second run says the same.
    The provider answers every call, in a time that its length says.

    Exit codes: 0 done, 1 the embedded store cannot be started, 2 wrong options, a policy or a
    trace that cannot be read, 130 interrupted.

    Example: sluicegate simulate pools.yaml --trace calls.csv --against pools-new.yaml
    """
    wait = _duration(max_wait)
    calls = _calls(trace, minutes, seed)
    files = [policy] if against is None else [policy, against]
    configs = [_config(file) for file in files]
    scenes = [
        Scene(
            calls=calls,
            resource=_resource(config, resource, file, calls),
            max_wait=wait,
            max_output=max_output,
            provider=Provider(latency=latency, tokens_per_second=tokens_per_second),
        )
        for config, file in zip(configs, files, strict=True)
    ]
    found: list[Figures] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="sluicegate-") as home,
            EmbeddedValkey(Path(home)) as store,
        ):
            for file, config, scene in zip(files, configs, scenes, strict=True):
                with _progress(file.name, len(calls)) as told:
                    ended = replay(store.url, config, file.parent, scene, told)
                found.append(figures(config, scene, ended))
    except EmbeddedError as error:
        fail(str(error), REFUSED)
    except KeyboardInterrupt:
        fail("interrupted; nothing is left behind", _INTERRUPTED)
    if output is Output.JSON:
        names = [str(file) for file in files]
        told_all = [
            {"policy": n} | msgspec.to_builtins(f) for n, f in zip(names, found, strict=True)
        ]
        typer.echo(msgspec.json.format(msgspec.json.encode(told_all), indent=2))
        return
    typer.echo(f"{len(calls):,} calls of {trace.name} in {lasting(calls[-1].at)}")
    typer.echo(side_by_side([file.name for file in files], found))


def side_by_side(names: list[str], found: list[Figures]) -> str:
    """A column for each policy."""
    rows: dict[str, list[str]] = {}

    def put(head: str, told: Callable[[Figures], str]) -> None:
        rows[head] = [told(each) for each in found]

    put("granted", lambda f: f"{f.granted:,} ({f.granted / f.calls:.1%})")
    put("refused with 429", lambda f: f"{f.too_many:,}")
    for code in sorted({code for each in found for code in each.refused}):
        put(f"  {code}", lambda f, code=code: f"{f.refused.get(code, 0):,}")  # type: ignore[misc]  # bound now
    put("waited", lambda f: f"{f.waited:,}")
    for part in ("mean", "p50", "p95", "p99", "longest"):
        put(f"  wait {part}", lambda f, part=part: f"{getattr(f.waits, part):.2f} s")  # type: ignore[misc]  # likewise
    put("most at once", lambda f: f"{f.in_flight:,}")
    put("input tokens", lambda f: f"{f.input_tokens:,}")
    put("output tokens", lambda f: f"{f.output_tokens:,}")
    put("cost", lambda f: amount(f.cost_usd, "cost_usd"))
    for name in dict.fromkeys(use.limit for each in found for use in each.limits):
        put(f"{name} used", lambda f, name=name: _used(f, name))  # type: ignore[misc]  # likewise
    tenants = dict.fromkeys(group.tenant for each in found for group in each.tenants)
    for tenant in tenants if len(tenants) > 1 else ():
        put(f"tenant {tenant}", lambda f, tenant=tenant: _tenant(f, tenant))  # type: ignore[misc]  # likewise
    return table(["", *names], [[head, *cells] for head, cells in rows.items()])


def _used(found: Figures, name: str) -> str:
    use = next((use for use in found.limits if use.limit == name), None)
    if use is None:
        return "-"
    whole = amount(use.amount, use.meter)
    if use.share is None:
        return whole
    return f"{whole} ({use.share:.1%}, busiest minute {use.busiest_minute:.0%})"


def _tenant(found: Figures, tenant: str) -> str:
    group = next(group for group in found.tenants if group.tenant == tenant)
    return f"{group.granted:,} of {group.calls:,}, wait p95 {group.waits.p95:.2f} s"


@contextlib.contextmanager
def _progress(name: str, calls: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(name, total=calls)
        yield lambda done: shown.update(task, completed=done)


def _duration(text: str) -> float:
    if text.strip() in {"0", "0s"}:
        return 0.0
    try:
        return seconds(text)
    except ValueError as error:
        fail(f"--max-wait: {error}", WRONG_WORDS)


def _calls(trace: Path, minutes: float | None, seed: int) -> list[Call]:
    try:
        calls = read(trace, seed)
    except TraceError as error:
        fail(str(error), WRONG_WORDS)
    if minutes is not None:
        calls = [call for call in calls if call.at < minutes * 60]
    if not calls:
        fail(f"{trace} has no call in its first {minutes:g} minutes", WRONG_WORDS)
    return calls


def _config(file: Path) -> Config:
    try:
        return load(file)
    except ConfigError as error:
        fail(str(error), WRONG_WORDS)


def _resource(config: Config, given: str | None, file: Path, calls: list[Call]) -> str:
    """The resource of calls that name none; every resource of the trace must be configured."""
    named = [f"{p}/{m}" for p, pool in config.pools.items() for m in pool.models if m[-1] != "*"]
    if given is None and any(call.resource is None for call in calls) and len(named) != 1:
        known = ", ".join(named) or "none by name"
        fail(
            f"{file} has more than one resource: say which with --resource; it has {known}",
            WRONG_WORDS,
        )
    chosen = given or (named[0] if named else "")
    policies = Policies(config, PREFIX)
    try:
        for name in dict.fromkeys(call.resource or chosen for call in calls):
            policies.policy(name, "default")
    except UnknownResource as error:
        fail(f"{file}: {error}", WRONG_WORDS)
    return chosen
