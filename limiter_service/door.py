"""The door: finds out who calls, before anything of a request is read."""

import asyncio
import ipaddress
from collections.abc import Iterator
from typing import Any

import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute, APIRouter
from starlette.routing import BaseRoute

from limiter_service import http
from limiter_service.engine import credentials
from limiter_service.engine.callers import ANYBODY, Caller
from limiter_service.engine.credentials import Credential
from limiter_service.engine.failures import Allowance, Failures
from limiter_service.engine.keyring import Keyring
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.engine.turnstile import Why
from limiter_service.guests import neighbourhood
from limiter_service.http import Scope
from limiter_wire import ErrorCode, Role

CALLER, DOOR = "sluicegate.caller", "sluicegate.door"
"""Where a scope has who calls, and the door that finds it out."""

_SPEND, _LOOK = (Role.ACQUIRE,), (Role.ACQUIRE, Role.READ)
HOT_ROLES: dict[str, tuple[Role, ...]] = {
    "/v1/acquire": _SPEND,
    "/v1/settle": _SPEND,
    "/v1/renew": _SPEND,
    "/v1/check": _LOOK,
    "/v1/observe": _SPEND,
    "/v1/batch": _SPEND,
    "/v1/channel": _SPEND,
}
"""Who may call the routes in front of FastAPI: any of these roles."""

_SCHEME = "bearer "
_NO_KEY = "send an API key: `Authorization: Bearer sg_...`"
_NO_SUCH_KEY = "the header Authorization holds no API key: `Bearer sg_<id>_<secret>`"
_LOGGED = Allowance(burst=20, every=1.0, addresses=1)

_log = structlog.get_logger()


class Door:
    """Lets callers in.

    Without a key comes in whoever may: everybody where *anonymous*, and where only this host can
    call (*local*) as long as there are no keys.
    """

    def __init__(
        self, keyring: Keyring, *, anonymous: bool, local: bool, metrics_open: bool
    ) -> None:
        self.keyring, self.metrics_open = keyring, metrics_open
        self.turnstile = keyring.turnstile
        self._anonymous, self._local = anonymous, local
        self._failures, self._logged = Failures(Allowance()), Failures(_LOGGED)

    async def admit(self, scope: Scope) -> Caller:
        """Who calls. Raises Refusal."""
        try:
            scope[CALLER] = caller = await self._caller(http.header(scope, b"authorization"), scope)
        except Refusal as refusal:
            if refusal.problem.code is ErrorCode.UNAUTHENTICATED:
                self._failed(scope, refusal)
            raise
        return caller

    def knows(self, shown: Credential | None) -> Caller | None:
        """Who calls with such a key, or without one, where nobody has to be asked; None where it
        is not plain, which is left to `admit`: to find it out, or to refuse and to count that.
        """
        if shown is not None:
            return self.keyring.knows(shown)
        if self._anonymous or (self._local and self.keyring.has_none):
            return ANYBODY
        return None

    async def _caller(self, sent: str | None, scope: Scope) -> Caller:
        shown = None if sent is None else shown_in(sent)
        if shown is not None:
            caller = self.keyring.find(shown)
            if caller is not None:
                return caller
        if self._anonymous and sent is None:
            self.refuse_foreign_pages(scope)
            return ANYBODY
        if (self._local or self._anonymous) and await self.keyring.is_empty():
            self.refuse_foreign_pages(scope, local=not self._anonymous)
            return ANYBODY
        if sent is None:
            raise self.turnstile.bar(Why.NO_KEY, _NO_KEY)
        if shown is None:
            raise self.turnstile.bar(Why.NOT_A_KEY, _NO_SUCH_KEY)
        return await self.keyring.look_for(shown)

    def refuse_foreign_pages(self, scope: Scope, *, local: bool = False) -> None:
        """Keep out pages of other sites, which browsers let call any address that they reach.

        Where only this host may call (*local*), also those whose name was made to lead here.
        """
        origin = http.header(scope, b"origin")
        if origin is None:
            return
        host = origin.partition("://")[2]
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        strange = host != http.header(scope, b"host")
        if strange or (local and not is_loopback(name.strip("[]"))):
            detail = f"a page of {origin[:200]} may not use this service"
            raise self.turnstile.bar(Why.FOREIGN_PAGE, detail)

    def _failed(self, scope: Scope, refusal: Refusal) -> None:
        """Count a failure of an address. Raises Refusal in its place when these are too many."""
        address, now = _address(scope), asyncio.get_running_loop().time()
        wait = self._failures.note(address, now)
        if self._logged.note("", now) == 0:
            why = refusal.problem.detail
            _log.warning(
                "a caller without a valid key", address=address, why=why, path=scope["path"]
            )
        if wait > 0:
            detail = "too many calls without a valid API key came from this address"
            raise refuse(ErrorCode.TOO_MANY_FAILURES, detail, retry_after=wait) from refusal


def shown_in(sent: str) -> Credential | None:
    """The key in a header `Authorization`; None when there is none in it."""
    scheme, rest = sent[: len(_SCHEME)], sent[len(_SCHEME) :]
    return credentials.read(rest.strip()) if scheme.lower() == _SCHEME else None


def caller_of(scope: Scope) -> Caller:
    """Who was let in."""
    caller: Caller = scope[CALLER]
    return caller


def is_loopback(host: str) -> bool:
    """Whether only programs of the same host can call an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(scope: Scope) -> str:
    """Whose failures are counted together."""
    return neighbourhood(str((scope.get("client") or ("",))[0]))


# Ordinary routes say what they need, and are refused a place in the application if they do not.


class Needs:
    """A dependency of a route: any of *roles*; a caller without bounds where it says so."""

    def __init__(self, *roles: Role, everywhere: bool = False) -> None:
        self.roles, self.everywhere = roles, everywhere

    async def __call__(self, request: Request) -> None:
        """Refuse who may not; leave who calls in the scope."""
        door: Door = request.scope[DOOR]
        caller = await door.admit(request.scope)
        if self.roles:
            caller.needs(*self.roles)
        if self.everywhere:
            caller.needs_no_bounds()


class NeedsToScrape(Needs):
    """A dependency of the route of metrics, which settings may open: they tell of everybody."""

    def __init__(self) -> None:
        super().__init__(Role.READ, everywhere=True)

    async def __call__(self, request: Request) -> None:
        """Refuse who may not, unless the route is open."""
        door: Door = request.scope[DOOR]
        if not door.metrics_open:
            await super().__call__(request)


class Open:
    """A dependency of a route that everybody may call: it shows nothing of anybody."""

    async def __call__(self) -> None:
        """Let everybody in."""


def needs(*roles: Role, everywhere: bool = False) -> Any:  # FastAPI's own type is private
    """What a route needs: any of *roles*, none: any key; *everywhere*: one that is not bound."""
    return Depends(Needs(*roles, everywhere=everywhere))


def needs_to_scrape() -> Any:  # likewise
    """What a route of metrics needs."""
    return Depends(NeedsToScrape())


def open_to_all() -> Any:  # likewise
    """That a route needs nothing."""
    return Depends(Open())


def need_of(route: BaseRoute) -> Needs | Open | None:
    """What a route says that it needs."""
    if not isinstance(route, APIRoute):
        return None
    found = [each.dependency for each in route.dependencies]
    said = [each for each in found if isinstance(each, Needs | Open)]
    return said[0] if len(said) == 1 else None


def routes_of(app: FastAPI | APIRouter) -> Iterator[BaseRoute]:
    """Every ordinary route, those of routers within too."""
    for route in app.routes:
        router = getattr(route, "original_router", None)  # FastAPI keeps them whole
        if isinstance(router, APIRouter):
            yield from routes_of(router)
        else:
            yield route


def refuse_silent_routes(app: FastAPI) -> None:
    """Raise when a route does not say who may call it."""
    silent = [getattr(each, "path", each) for each in routes_of(app) if need_of(each) is None]
    if silent:
        raise LookupError(f"routes without `needs` or `open_to_all`: {silent}")
