"""`sluicegate explain`: what would happen to a call, and why."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from limiter_service.cli.asking import Output, ask, show_json, table
from limiter_service.cli.ending import WRONG_WORDS, fail
from limiter_service.cli.limits import in_force
from limiter_service.cli.options import HERE, Key, Resource, Shown, Tenant, Url
from limiter_service.cli.words import amount, lasting, parts

_SCOPES = {
    "pool": "all calls of the pool",
    "model": "all calls of the model",
    "tenant": "this tenant",
    "tenant_model": "this tenant on the model",
}


def explain(
    resource: Resource,
    *,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="What the call may use at most, in all.")
    ] = None,
    input_tokens: Annotated[
        int | None, typer.Option(min=1, help="The size of the input, in place of --tokens.")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(min=0, help="The most that is written; with --input-tokens.")
    ] = None,
    cost_usd: Annotated[
        float | None, typer.Option(min=0, help="What it may cost, where prices are not known.")
    ] = None,
    tenant: Tenant = "default",
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Say which limits a call meets, what is left of them, and what an acquire would answer.

    Nothing changes: it asks /v1/check, and does not take a place in the queue.

    Exit codes: 0 it was explained, 1 the service refused or cannot be reached, 2 wrong options.

    Example: sluicegate explain openai/gpt-4o --tokens 1200 --tenant checkout
    """
    pool, model = parts(resource)
    if (tokens is None) == (input_tokens is None):
        fail("say how large the call is: --tokens N, or --input-tokens N", WRONG_WORDS)
    if max_output_tokens is not None and input_tokens is None:
        fail("--max-output-tokens goes with --input-tokens", WRONG_WORDS)
    sizes = {
        "tokens": tokens,
        "input_tokens": input_tokens,
        "max_output_tokens": max_output_tokens,
        "cost_usd": cost_usd,
    }
    body = {"resource": resource, "tenant": tenant}
    body |= {name: value for name, value in sizes.items() if value is not None}  # type: ignore[misc]  # a JSON object
    checked = ask(url, "/v1/check", key=api_key, method="POST", body=body)
    path = f"/v1/resources/{quote(pool)}/{quote(model)}"
    view = ask(url, path, key=api_key, query={"tenant": tenant})
    circuit = ask(url, f"/v1/breakers/{quote(pool)}/{quote(model)}", key=api_key)
    waiting = ask(url, f"/v1/queue/{quote(pool)}", key=api_key)
    if output is Output.JSON:
        found = {"check": checked, "resource": view, "breaker": circuit, "queue": waiting}
        show_json(found)
        return
    size = f"{tokens:,} tokens" if tokens else f"{input_tokens:,} input tokens"
    size += f" and at most {max_output_tokens:,} written" if max_output_tokens is not None else ""
    typer.echo(f"{resource}, tenant {tenant}, {size}")
    for line in verdict(checked, circuit, waiting, resource):
        typer.echo(f"  {line}")
    typer.echo()
    typer.echo(_limits(checked["limits"], {each["name"]: each for each in view["limits"]}))


def verdict(
    checked: dict[str, Any], circuit: dict[str, Any], waiting: dict[str, Any], resource: str
) -> list[str]:
    """What would happen, why, and what to do about it."""
    limits = {limit["name"]: limit for limit in checked["limits"]}
    short = limits.get(checked["limit"] or "")
    depth, refuses = waiting["depth"], circuit["reason"] is not None
    said: list[str] = []
    if checked["would_grant"] and not depth:
        said.append("would be granted now")
    elif checked["would_grant"]:
        said.append(f"fits now, and {depth} wait in this pool: who shares a limit goes first")
    elif checked["never_fits"] and short:
        whole = amount(short["limit"], short["meter"])
        said.append(f"would be refused for ever: it needs more than {short['name']} has ({whole})")
        said.append(f"make it smaller, or raise the limit: {_set(resource, short)}")
    elif refuses:
        pause = circuit["retry_after"]
        until = "until somebody acts" if pause is None else f"for {lasting(pause)} more"
        said.append(
            f"would be refused: the breaker is {circuit['effective']} ({circuit['reason']}) {until}"
        )
        said.append(f"see `sluicegate breakers show {resource}`")
    elif short:
        left = amount(short["remaining"], short["meter"])
        said.append(f"would be refused now: {short['name']} has {left} left")
        said.append(f"it fits in {lasting(checked['retry_after'])}, or wait with max_wait")
    else:
        said.append("would be refused now")
    if not checked["would_grant"] and checked["would_fit"] and not checked["never_fits"]:
        said.append(f"a call of at most {checked['would_fit']:,} tokens fits now")
    if depth:
        said.append(f"{depth} wait in this pool, the oldest for {lasting(waiting['oldest'])}")
    if not refuses:
        said.append(f"the breaker is {circuit['effective']}")
    trial = checked.get("trial")
    if trial and trial["would_grant"] != checked["would_grant"]:
        said.append(
            f"with its shadow limits enforced it would be "
            f"{'granted' if trial['would_grant'] else 'refused'} ({trial['limit']})"
        )
    if checked["degraded"]:
        said.append("the answer is degraded: the store is away")
    return said


def _set(resource: str, limit: dict[str, Any]) -> str:
    return f"sluicegate limits set {resource} {limit['name']} AMOUNT --ttl 1h"


def _limits(limits: list[dict[str, Any]], known: dict[str, dict[str, Any]]) -> str:
    if not limits:
        return "no limit matches: it is granted without end"
    rows = []
    for limit in limits:
        meter = limit["meter"]
        verdict = "too little" if limit["refused"] else "room"
        if limit["shadow"]:
            verdict += ", in shadow"
        rows.append(
            [
                limit["name"],
                _SCOPES.get(limit["scope"], limit["scope"]),
                meter,
                amount(limit["remaining"], meter),
                amount(limit["limit"], meter),
                "-" if meter == "concurrency" else lasting(limit["reset_after"]),
                verdict,
                in_force(known[limit["name"]]) if limit["name"] in known else "",
            ]
        )
    heads = ["LIMIT", "SHARED BY", "COUNTS", "LEFT", "OF", "FULL IN", "VERDICT", "IN FORCE"]
    return table(heads, rows)
