"""Everything at a glance: what `status` prints once and `top` again and again."""

from typing import Any
from urllib.parse import quote

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from limiter_service.cli.asking import Unanswered, answer
from limiter_service.cli.queue import head
from limiter_service.cli.words import amount, bar, lasting, share_used, tightest

_NARROW, _WIDE = 70, 100
_BAR, _SHORT_BAR = 20, 8
_MOST_ROWS = 200
_HIGH, _FULL = 0.8, 1.0


class Overview(msgspec.Struct, frozen=True):
    """What a service says of itself at one moment. `unready` is why it is not."""

    unready: str | None
    fleet: dict[str, Any]
    resources: list[dict[str, Any]]
    breakers: dict[str, dict[str, Any]]
    providers: list[dict[str, Any]]
    queues: list[dict[str, Any]]


def look(url: str, key: str | None) -> Overview:
    """Ask for everything. Raises Unanswered when nobody is there, or the store is away."""
    try:
        answer(url, "/readyz", key=key)
        unready = None
    except Unanswered as error:
        if error.status is None:
            raise
        unready = str(error)
    fleet = answer(url, "/v1/replicas", key=key)
    resources = answer(url, "/v1/resources", key=key)["resources"]
    circuits = answer(url, "/v1/breakers", key=key)
    pools = answer(url, "/v1/config", key=key)["config"]["pools"]
    return Overview(
        unready=unready,
        fleet=fleet,
        resources=resources,
        breakers={view["resource"]: view for view in circuits["breakers"]},
        providers=circuits["providers"],
        queues=[answer(url, f"/v1/queue/{quote(pool)}", key=key) for pool in pools],
    )


def drawn(view: Overview, width: int, *, bars: bool) -> RenderableType:
    """The overview for a terminal of *width*: a line per resource, or with *bars* per limit."""
    lines = [Text(line, overflow="fold") for line in heads(view)]
    if not view.resources:
        return Group(*lines, Text("no resources yet: none is configured by name or in use"))
    rows = _limits(view, width) if bars else _resources(view)
    return Group(*lines, rows)


def heads(view: Overview) -> list[str]:
    """What concerns the whole service, in lines."""
    replicas = view.fleet["replicas"]
    draining = [each["name"] for each in replicas if each["draining"]]
    said = ["ready" if view.unready is None else f"not ready: {view.unready}"]
    said.append(f"{len(replicas)} replica{'s' * (len(replicas) != 1)}")
    if draining:
        said.append(f"{len(draining)} draining")
    if not view.fleet["agreed"]:
        said.append("configurations differ")
    lines = ["; ".join(said)]
    lines += [head(each) for each in view.queues if each["depth"]]
    lines += [
        f"{each['pool']} is {each['verdict']}: open {', '.join(each['open_models']) or 'none'}"
        + (f", latched: {each['latch']}" if each["latch"] else "")
        for each in view.providers
        if each["verdict"] != "up"
    ]
    for resource in view.resources:
        lines += [
            f"{budget['name']}: {amount(budget['spent'], budget['meter'])} of "
            f"{amount(budget['limit'], budget['meter'])} spent, at this pace all of it in "
            f"{lasting(budget['exhausted_in'])}"
            for budget in resource["budgets"]
            if budget["exhausted_in"] is not None and not budget["shadow"]
        ]
    return list(dict.fromkeys(lines))


def _resources(view: Overview) -> Table:
    table = _table("RESOURCE", "BREAKER", "FLIGHT", "TIGHTEST", "USED")
    for each in view.resources[:_MOST_ROWS]:
        limit = tightest(each["limits"])
        used = share_used(limit) if limit else 0.0
        table.add_row(
            each["resource"],
            _breaker(view, each),
            "-" if each["in_flight"] is None else str(each["in_flight"]),
            limit["name"] if limit else "-",
            Text(f"{used:.0%}", _style(used)) if limit else "-",
        )
    return table


def _limits(view: Overview, width: int) -> Table:
    """A bar per limit; the narrower the terminal, the less beside it."""
    heads = ["LIMIT", "USED"]
    heads += ["LEFT"] if width >= _NARROW else []
    heads += ["OF", "FULL IN"] if width >= _WIDE else []
    table = _table(*heads)
    for each in view.resources[:_MOST_ROWS]:
        about = f"{each['resource']}  {_breaker(view, each)}"
        if each["in_flight"] is not None:
            about += f"  {each['in_flight']} in flight"
        table.add_row(Text(about, "bold"), *[""] * (len(heads) - 1))
        for limit in each["limits"]:
            table.add_row(*_cells(limit, heads))
    return table


def _cells(limit: dict[str, Any], heads: list[str]) -> list[RenderableType]:
    used, meter = share_used(limit), limit["meter"]
    width = _BAR if "LEFT" in heads else _SHORT_BAR
    every: dict[str, RenderableType] = {
        "LIMIT": f"  {limit['name']}{' (shadow)' if limit['shadow'] else ''}",
        "USED": Text(f"{bar(used, width)} {used:4.0%}", _style(used)),
        "LEFT": amount(limit["remaining"], meter),
        "OF": amount(limit["limit"], meter),
        "FULL IN": "-" if meter == "concurrency" else lasting(limit["reset_after"]),
    }
    return [every[name] for name in heads]


def _breaker(view: Overview, resource: dict[str, Any]) -> str:
    circuit = view.breakers.get(resource["resource"])
    return str(circuit["effective"] if circuit else resource["breaker"])


def _style(used: float) -> str:
    return "red" if used >= _FULL else "yellow" if used >= _HIGH else ""


def _table(*heads: str) -> Table:
    table = Table(*heads, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.overflow = "ellipsis"
        column.no_wrap = True
    return table
