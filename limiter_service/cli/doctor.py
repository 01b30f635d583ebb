"""`sluicegate doctor`: what is wrong, and the cure."""

import asyncio
from typing import Annotated

import msgspec
import typer

from limiter_service.cli.asking import Output, Unanswered, answer
from limiter_service.cli.ending import FOUND, WRONG_WORDS, fail
from limiter_service.cli.findings import Finding, Level, of_service, of_store, unreachable
from limiter_service.cli.options import HERE, Key, Shown, Url, settings_of
from limiter_service.settings import Settings
from limiter_service.store import acl
from limiter_service.store.address import BadAddress, parse, redacted
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.inspecting import Store, inspect
from limiter_service.store.keys import DEFAULT_PREFIX
from limiter_service.stores import connect

_PATIENCE = 2.0
"""Seconds for a store's answer, at least: one that is slow is to be seen, not given up."""


def doctor(
    *,
    redis_url: Annotated[
        str | None,
        typer.Option(
            envvar="SLUICEGATE_REDIS_URL",
            help="Look at this store, too, as `serve` is given it. [SLUICEGATE_REDIS_URL]",
        ),
    ] = None,
    service: Annotated[
        bool, typer.Option("--service/--no-service", help="Look at the running service.")
    ] = True,
    key_prefix: Annotated[
        str,
        typer.Option(
            envvar="SLUICEGATE_KEY_PREFIX",
            help="In front of every key in the store. [SLUICEGATE_KEY_PREFIX]",
        ),
    ] = DEFAULT_PREFIX,
    acl_rules: Annotated[
        bool,
        typer.Option("--acl", help="Print the least rights for the store's user, and end."),
    ] = False,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Look for what is wrong with the service and its store, and say how to mend it.

    Of the store: version, scripts, rights, eviction, memory, persistence, replication,
    sentinels, latency, clock, slots of a cluster. It is connected as by `serve`:
    certificates and the login of sentinels come from the same variables. Of the service:
    readiness, pools files that are refused, replicas that differ, orders without an end.
    Nothing changes.

    Exit codes: 0 nothing is wrong (warnings aside), 2 wrong options, 3 something is.

    Example: sluicegate doctor --redis-url redis://redis:6379/0
    """
    if acl_rules:
        cluster = redis_url is not None and "+cluster" in redis_url.partition("://")[0]
        typer.echo(acl.line("sluicegate", "SECRET", acl.rules(key_prefix, cluster=cluster)))
        return
    if not service and redis_url is None:
        fail("nothing to look at: give --redis-url, or leave out --no-service", WRONG_WORDS)
    found = _service(url, api_key) if service else []
    if redis_url is None:
        cure = "give --redis-url (an embedded store is looked after by its service)"
        found.append(Finding(Level.NOTE, "store", "was not looked at", cure))
    else:
        found += _store(redis_url, key_prefix)
    if output is Output.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        for each in found:
            typer.echo(f"{each.level.upper():8} {each.about:14} {each.said}")
            if each.cure and each.level is not Level.OK:
                typer.echo(f"{'':8} {'':14} cure: {each.cure}")
    if any(each.level is Level.ERROR for each in found):
        raise typer.Exit(FOUND)


def _service(url: str, key: str | None) -> list[Finding]:
    try:
        answer(url, "/readyz", key=key)
        unready = None
    except Unanswered as error:
        if error.status is None:
            cure = "sluicegate serve, or give its address with --url; --no-service leaves it out"
            return [Finding(Level.ERROR, "service", str(error), cure)]
        unready = str(error)
    try:
        fleet = answer(url, "/v1/replicas", key=key)
        config = answer(url, "/v1/config", key=key)
    except Unanswered as error:
        return [Finding(Level.ERROR, "service", unready or str(error), "look at its store")]
    return list(of_service(unready, fleet, config))


def _store(url: str, prefix: str) -> list[Finding]:
    try:
        address = parse(url)
    except BadAddress as error:
        fail(f"--redis-url: {error}", WRONG_WORDS)
    settings = settings_of({"redis_url": url, "key_prefix": prefix})
    try:
        return list(of_store(asyncio.run(_seen(settings, url))))
    except StoreUnavailable as error:
        return [unreachable(address, redacted(url), str(error))]


async def _seen(settings: Settings, url: str) -> Store:
    patient = {
        name: max(_PATIENCE, getattr(settings, name))
        for name in ("connect_timeout", "command_timeout")
    }
    client = connect(settings.model_copy(update=patient), url)
    try:
        return await inspect(client, settings.key_prefix)
    finally:
        await client.aclose()
