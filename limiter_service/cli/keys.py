"""`sluicegate keys`: make API keys, list them, revoke them."""

import asyncio
import getpass
import json
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from urllib.parse import quote

import msgspec
import typer

from limiter_service.cli.asking import Output, ask, table
from limiter_service.cli.ending import fail
from limiter_service.config import seconds
from limiter_service.engine import credentials
from limiter_service.engine.keyring import Keyring
from limiter_service.engine.refusals import Refusal
from limiter_service.settings import Settings
from limiter_service.store.access_commands import AccessCommands
from limiter_service.store.address import BadAddress, redacted
from limiter_service.stores import connect
from limiter_wire import CreatedKey, KeyList, KeyView, NewKey, Role

T = TypeVar("T")

keys = typer.Typer(
    name="keys",
    help="Make API keys, list them, revoke them: at a running service, or in its store.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

HERE = "http://127.0.0.1:8080"
Url = Annotated[str, typer.Option(help="Where the service listens.")]
Store = Annotated[
    str | None,
    typer.Option(help="Go to this store instead of a service: for the first key of a fleet."),
]
Key = Annotated[
    str | None,
    typer.Option(help="An admin key, where there are keys. [SLUICEGATE_API_KEY]"),
]
Shown = Annotated[Output, typer.Option(help="For people, or as the service answers.")]
Why = Annotated[str, typer.Option(help="Told in the events, and in the service's log.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is: a team, a program, a person.")],
    role: Annotated[list[Role], typer.Option(help="What it may do; may be given more than once.")],
    pool: Annotated[
        list[str] | None, typer.Option(help="Bind it to a pool; may be given more than once.")
    ] = None,
    tenant: Annotated[
        list[str] | None, typer.Option(help="Bind it to a tenant; may be given more than once.")
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(help='How long it is valid: seconds, "90d", "12h". Default: until revoked.'),
    ] = None,
    reason: Why = "",
    url: Url = HERE,
    redis_url: Store = None,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Make a key and show it: this once, since only a digest of it is kept.

    Exit codes: 0 done, 1 the service refused or cannot be reached, 2 wrong options.
    """
    try:
        life = None if ttl is None else seconds(ttl)
    except ValueError as error:
        fail(f"--ttl: {error}", 2)
    body = {"name": name, "roles": role, "reason": reason, "ttl": life}
    bounds = {"pools": pool or None, "tenants": tenant or None}
    try:
        order = msgspec.convert(body | bounds, NewKey)
    except msgspec.ValidationError as error:
        fail(str(error), 2)
    if redis_url is None:
        told = ask(url, "/v1/keys", key=api_key, method="POST", body=msgspec.to_builtins(order))
        created = msgspec.convert(told, CreatedKey)
    else:
        created = _in_store(redis_url, lambda ring: ring.create(order, _operator()))
    if output is Output.JSON:
        _print(created)
        return
    typer.echo(created.key)
    typer.echo(
        f"{created.name}: {_limits(created)}; {_life(created)}.\n"
        "Keep it now: it is shown this once, and stored as a digest only.",
        err=True,
    )


@keys.command(name="list")
def list_(
    url: Url = HERE,
    redis_url: Store = None,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """List keys: whose they are and what they may do, never their secrets."""
    if redis_url is None:
        found = msgspec.convert(ask(url, "/v1/keys", key=api_key), KeyList)
    else:
        found = _in_store(redis_url, lambda ring: ring.listed())
    if output is Output.JSON:
        _print(found)
        return
    heads = ["ID", "NAME", "STATE", "ROLES", "POOLS", "TENANTS", "CREATED", "BY", "EXPIRES"]
    typer.echo(table(heads, [_row(view) for view in found.keys]))


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id: the middle of sg_<id>_<secret>.")],
    reason: Why = "",
    url: Url = HERE,
    redis_url: Store = None,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Revoke a key: every replica refuses it within a second."""
    if redis_url is None:
        path = f"/v1/keys/{quote(key_id, safe='')}?reason={quote(reason)}"
        view = msgspec.convert(ask(url, path, key=api_key, method="DELETE"), KeyView)
    else:
        view = _in_store(redis_url, lambda ring: ring.revoke(key_id, _operator(), reason))
    if output is Output.JSON:
        _print(view)
        return
    typer.echo(f"{view.name} ({view.id}) is revoked")


@keys.command()
def generate() -> None:
    """Print a new admin key that is stored nowhere.

    Give it to services as SLUICEGATE_ADMIN_KEY, or in a file named by
    SLUICEGATE_ADMIN_KEY_FILE: in a Secret, where the store shall not be the only place of keys.
    """
    typer.echo(credentials.draw().text)


def _in_store(url: str, work: Callable[[Keyring], Awaitable[T]]) -> T:
    async def run() -> T:
        settings = Settings()
        try:
            client = connect(settings, url)
        except BadAddress as error:
            fail(f"--redis-url {redacted(url)}: {error}", 2)
        ring = Keyring(AccessCommands(client, settings.key_prefix), list, grace=0.0)
        try:
            return await work(ring)
        finally:
            await client.aclose()

    try:
        return asyncio.run(run())
    except Refusal as refusal:
        fail(f"{refusal.problem.code}: {refusal.problem.detail}", 1)


def _operator() -> str:
    return f"{getpass.getuser()} at the store"


def _print(value: object) -> None:
    typer.echo(json.dumps(msgspec.to_builtins(value), indent=2))


def _row(view: KeyView) -> list[str]:
    return [
        view.id,
        view.name,
        view.state,
        ",".join(view.roles),
        "any" if view.pools is None else ",".join(view.pools),
        "any" if view.tenants is None else ",".join(view.tenants),
        _clock(view.created),
        view.created_by,
        "never" if view.expires is None else _clock(view.expires),
    ]


def _limits(view: KeyView) -> str:
    pools = "every pool" if view.pools is None else f"pools {', '.join(view.pools)}"
    tenants = "every tenant" if view.tenants is None else f"tenants {', '.join(view.tenants)}"
    return f"{', '.join(view.roles)} on {pools} for {tenants}"


def _life(view: KeyView) -> str:
    return "until it is revoked" if view.expires is None else f"until {_clock(view.expires)}"


def _clock(then: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(then)) if then else ""
